# docker build --build-arg EXTRA=cpu -t jaxsnn .                 EXTRA: cpu, cuda or tpu
# docker run -v jaxsnn-runs:/runs jaxsnn                          the README's main job; the run stays in the volume
# docker run jaxsnn python -m jaxsnn.optimize --help
FROM python:3.11-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel /source

FROM python:3.11-slim
ARG EXTRA=cpu
COPY --from=build /wheel /wheel
COPY constraints.txt /wheel
RUN pip install --no-cache-dir --constraint /wheel/constraints.txt "$(echo /wheel/*.whl)[$EXTRA]"

WORKDIR /app
COPY launch/run.sh launch/run.sh
RUN useradd --uid 1000 --create-home jaxsnn && install --directory --owner=1000 --group=1000 /runs
USER 1000
VOLUME /runs
CMD ["/app/launch/run.sh", "/runs/demo"]
