"""What benchmarks.device_check reads from a trace, which parts it leaves alone, and what it prints."""

import io

from rich.console import Console

from benchmarks import device_check
from benchmarks.device_check import DeviceConfig
from benchmarks.device_profile import summary
from jaxsnn.runtime.files import write_json


def event(name, start, duration, where=1, line=2, **arguments):
    return {"ph": "X", "name": name, "ts": start, "dur": duration, "pid": where, "tid": line, "args": arguments}


def test_a_trace_is_summed_by_kernel_and_layer():
    """Streams of the device count, the host's threads do not; a scope names the layer."""
    names = [
        {"name": "process_name", "pid": 1, "args": {"name": "/device:GPU:0"}},
        {"name": "process_name", "pid": 7, "args": {"name": "/host:CPU"}},
        {"name": "thread_name", "pid": 1, "tid": 2, "args": {"name": "Stream #16(Compute)"}},
        {"name": "thread_name", "pid": 1, "tid": 3, "args": {"name": "Launch Stats"}},
    ]
    found = summary(
        [
            *names,
            event("fire", 0, 3, tf_op="jit(simulate)/while/body/layer1/fire"),
            event("fire", 10, 2, tf_op="jit(simulate)/while/body/layer12/fire"),
            event("copy", 14, 1),
            event("fire", 0, 50, line=3),
            event("main", 0, 90, where=7),
        ]
    )
    assert found["layers"] == {"rest": 1, "layer1": 3, "layer12": 2}
    assert found["kernels"] == [("fire", 2, 5), ("copy", 1, 1)]
    assert (found["span_us"], found["busy_us"]) == (15, 6)


def test_a_trace_of_a_cpu_is_summed_by_its_operations():
    assert summary([event("dot.1", 0, 4, hlo_op="dot.1"), event("python", 0, 9)])["busy_us"] == 4
    assert summary([])["busy_us"] == 0


def test_what_was_measured_is_printed_with_what_failed(tmp_path):
    config = DeviceConfig(out=tmp_path, parts=("equality", "throughput", "training"))
    write_json(tmp_path / "start.json", {"device": "1 x gpu"})
    equal = {"int8_equals_cpu": False, "candidates": 2, "images": 4, "timesteps": 20}
    write_json(tmp_path / "equality.json", equal)
    write_json(tmp_path / "training.json", {"error": "out of memory"})
    found = device_check.done(config)
    assert set(found) == {"start", "equality", "training"}
    printed = io.StringIO()
    Console(file=printed, width=120).print(device_check.table(found))
    assert "NOT EQUAL" in printed.getvalue() and "out of memory" in printed.getvalue()
