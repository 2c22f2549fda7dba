"""Turn a trained network into a fast spiking one."""

import os

_FLAG = "xla_cpu_experimental_ynn_fusion_type"

# XLA's YNNPACK fusions make convolutions and window sums on a CPU up to three times slower than XLA's own code
# (jax 0.10.2, Zen 4), and wrong results are reported for them (jax issues 39103, 39257). XLA reads it when its
# first computation runs; a value that the user has set stays.
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{_FLAG}=".strip()
