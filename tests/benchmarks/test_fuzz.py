"""The fuzzer's own bounds hold, and each of its readers takes the files that it begins with."""

import subprocess
import sys
import time

import pytest

from benchmarks import fuzz, fuzz_readers


def test_a_reader_that_takes_longer_is_a_finding_and_one_that_waits_is_not():
    def spin(content):
        began = time.process_time()
        while time.process_time() - began < 0.06:
            pass

    fuzz.bounded(lambda content: time.sleep(0.06), 0.05)(b"")
    fuzz.bounded(spin, 5.0)(b"")
    with pytest.raises(AssertionError, match=r"it took 0\.1 s"):
        fuzz.bounded(spin, 0.05)(b"")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_more_memory_than_allowed_is_not_given():
    program = (
        "from benchmarks.fuzz import limit_memory; limit_memory(100); held = bytes(50 << 20)\n"
        "try:\n    bytes(80 << 20)\nexcept MemoryError:\n    print('refused')"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "refused\n"


def test_every_reader_takes_its_first_files(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_readers, "refused", lambda read, *arguments: read(*arguments))
    for reader, files in fuzz_readers.readers(tmp_path).values():
        for content in files:
            reader(content)
