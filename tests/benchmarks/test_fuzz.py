"""The fuzzer holds its bounds and does what it says, and its readers take the files that they begin with."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import fuzz, fuzz_coverage, fuzz_formats, fuzz_readers
from benchmarks.fuzz_target import Finding, Target


def test_a_reader_that_takes_longer_is_a_finding_and_one_that_waits_is_not():
    def spin(content):
        began = time.process_time()
        while time.process_time() - began < 0.06:
            pass

    fuzz_coverage.bounded(lambda content: time.sleep(0.06), 0.05)(b"")
    fuzz_coverage.bounded(spin, 5.0)(b"")
    with pytest.raises(TimeoutError, match=r"it took 0\.1 s"):
        fuzz_coverage.bounded(spin, 0.05)(b"")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_more_memory_than_allowed_is_not_given():
    program = (
        "from benchmarks.fuzz_target import limit_memory; limit_memory(100); held = bytes(50 << 20)\n"
        "try:\n    bytes(80 << 20)\nexcept MemoryError:\n    print('refused')"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "refused\n"


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    return fuzz_readers.readers(tmp_path_factory.mktemp("fuzz"))


def test_every_reader_takes_its_first_files(targets):
    for name, target in targets.items():
        assert [target.read(content) for content in target.examples] == [True] * len(target.examples), name


def test_a_file_is_the_same_each_time_and_most_are_other_ones(targets, monkeypatch):
    for name, target in targets.items():
        made = [fuzz.content_of(target, name, number, 0) for number in range(20)]
        monkeypatch.setattr("time.time", lambda now=time.time(): now + 100)  # which a gzip file can hold
        assert made == [fuzz.content_of(target, name, number, 0) for number in range(20)]
        assert len({*made} - {*target.examples}) > 12, name


def test_what_is_taken_apart_is_put_together_rightly():
    """A checksum or a length that is wrong would end every file at the first line."""
    rng = np.random.default_rng(0)
    pixel = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010800000000")
    assert fuzz_formats._fields(b"\x08\x96\x01\x12\x02ab") == [(8, 150), (18, b"ab")]
    assert fuzz_formats._field(8, 150) + fuzz_formats._field(18, b"ab") == b"\x08\x96\x01\x12\x02ab"
    assert fuzz_formats.changed_png(pixel, (), rng)[:8] == pixel[:8]


def test_what_a_reader_must_not_do_is_a_finding():
    def never(content):
        raise ValueError("no sentence")

    def wrong(content):
        raise Finding("not right")

    assert fuzz.tried(Target(lambda content: True, []), b"", 1.0)[::2] == (True, "")
    assert fuzz.tried(Target(never, []), b"", 1.0)[2].startswith("ValueError: no sentence (test_fuzz.py")
    assert fuzz.tried(Target(wrong, []), b"", 1.0)[2] == "not right"
    assert fuzz.tried(Target(lambda content: sum(range(10**6)) > 0, []), b"", 1e-4)[2].startswith("it took")


def test_files_are_divided_by_share_and_what_was_done_is_left_out():
    shares = {"a": 1.0, "b": 3.0}
    done = {"a": fuzz.Tally(parts=[0]), "b": fuzz.Tally()}
    left = fuzz.jobs(shares, 2000, done)
    assert [job.first for job in left if job.reader == "a"] == [250]
    assert sorted(job.first for job in left if job.reader == "b") == list(range(0, 1500, 250))


@pytest.mark.slow
def test_the_command_finds_goes_on_and_counts(tmp_path):
    """Two parts in another process make what one makes."""
    config = fuzz.FuzzConfig(inputs=250, readers=("IDX",), json=tmp_path / "a.json")
    first = fuzz.fuzz(config, print)["IDX"]
    assert (first.parts, first.files, first.findings) == ([0], 250, []) and 0 < first.read < 250
    again = fuzz.fuzz(config, print)["IDX"]
    assert again == first
    assert json.loads((tmp_path / "a.json").read_text())["readers"]["IDX"]["files"] == 250
