"""Check the launch files against Kubernetes' and SkyPilot's own schemas: python .ci/check_launch.py

Needs kubernetes-validate and skypilot, in an environment of their own.
"""

from pathlib import Path

import kubernetes_validate
import sky
import yaml

KUBERNETES = kubernetes_validate.latest_version()
LAUNCH = Path(__file__).parents[1] / "launch"


def check_kubernetes(path: Path) -> None:
    """Everything in a JobSet's file that is Kubernetes' own: volume claims, and the template of each Job."""
    for document in yaml.safe_load_all(path.read_text()):
        jobs = [document]
        if document["kind"] == "JobSet":
            jobs = [
                {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
                for job in document["spec"]["replicatedJobs"]
            ]
        for job in jobs:
            kubernetes_validate.validate(job, KUBERNETES, strict=True)


def check_skypilot(path: Path) -> sky.Task:
    """The task in a file, as SkyPilot reads it."""
    return sky.Task.from_yaml_config(yaml.safe_load(path.read_text()), env_overrides=[("BUCKET", "jaxsnn-check")])


check_kubernetes(LAUNCH / "jobset.yaml")
print(f"jobset.yaml: volume claim and job template, Kubernetes {KUBERNETES}")
for path in sorted(LAUNCH.glob("skypilot-*.yaml")):
    print(f"{path.name}: {check_skypilot(path)}, SkyPilot {sky.__version__}")
