"""Every benchmark is listed, and ends in one sentence and exit code 2 on bad input."""

import runpy
import sys
import warnings
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``python -m benchmarks.NAME`` in this process; returns its exit code and what it printed as errors."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"benchmarks.{name}", *arguments])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            # a module imported before stays where it is: a second copy of it would outlive this test
            warnings.filterwarnings("ignore", "'.*' found in sys.modules", RuntimeWarning)
            runpy.run_module(f"benchmarks.{name}", run_name="__main__")
        return ended.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "command, sentence",
    [
        ("throughput --population 0", "--population is 0, expected at least 1"),
        ("throughput --population", "--population has no value: give one"),
        ("throughput --weights ABSENT", "no weights file at ABSENT"),
        ("throughput --data cifar10 --data-dir ABSENT", "the data folder ABSENT does not exist"),
        ("throughput --data nothing", "nothing"),
        ("gpu --rounds 0", "--rounds is 0, expected at least 1"),
        ("gpu --data cifar10 --data-dir ABSENT", "the data folder ABSENT does not exist"),
        ("gpu --weights ABSENT", "no weights file at ABSENT"),
        ("ahead --block 0", "--block is 0, expected at least 1"),
        ("ahead --chips v5e --hourly 1 2", "--hourly has 2 numbers, expected one for each of 1 chips"),
        ("device_check --rounds 0", "--rounds is 0, expected at least 1"),
        ("device_check --data cifar10 --data-dir ABSENT --out OUT", "the data folder ABSENT does not exist"),
        ("mutants --sample 0", "--sample is 0, expected at least 1"),
        ("mutants --modules ABSENT", "--modules has ABSENT, expected files or folders of the program"),
        ("training --batch 0", "--batch is 0, expected at least 1"),
        ("training --networks vgg99", "unknown network 'vgg99'"),
        ("optimizers --seeds 0", "--seeds is 0, expected at least 1"),
        ("optimizers --parts racing --cache HELD", "choose another --cache"),
        ("optimizers --parts racing --cache BROKEN", "BROKEN is not JSON"),
        ("optimizers_fuzz --configurations 0", "--configurations is 0, expected at least 1"),
        ("optimizers_fronts --seeds 0", "--seeds is 0, expected at least 1"),
        ("imports --images 3", "--images is 3, expected at least 4"),
        ("improvement --seeds 0", "--seeds is 0, expected at least 1"),
        ("improvement --data cifar10 --data-dir ABSENT", "the data folder ABSENT does not exist"),
        ("improvement --job.weights ABSENT", "no weights file at ABSENT"),
        ("few_timesteps --timesteps 4 0", "--timesteps is 0, expected at least 1"),
        ("few_timesteps --timesteps", "--timesteps has no value: give one"),
        ("few_timesteps --rows nothing", "--rows nothing is unknown: the rows are percentile"),
        ("few_timesteps --images 2001", "--images is 2001, but embedded has only 2000 training images"),
        ("few_timesteps --json HELD", "HELD holds rows with images None, not 512: choose another --json"),
        ("few_timesteps --weights ABSENT", "no weights file at ABSENT"),
        ("frontier --seeds 0", "--seeds is 0, expected at least 1"),
        ("frontier --json HELD", "HELD holds runs with other settings: give another --json"),
        ("optimizers_fronts --minutes 3", "--minutes needs a file from which the next call goes on"),
        ("rivals --timesteps", "--timesteps has no value: give one"),
        ("rivals --systems nothing", "--systems nothing is unknown: the systems are max-norm"),
        ("rivals --systems qcfs", "--systems qcfs is trained: say on how many images with --training-images"),
        ("rivals --minutes 0", "--minutes is 0.0, expected above 0 and finite"),
        ("rivals cifar10 --data-dir ABSENT", "the data folder ABSENT does not exist"),
        ("rivals --timesteps 4 0", "--timesteps is 0, expected at least 1"),
        ("rivals --images 0", "--images is 0, expected at least 1"),
        ("attacks --timesteps 0", "--timesteps is 0, expected at least 1"),
        ("attacks --images 0", "--images is 0, expected at least 1"),
        (
            "attacks --epsilon 300",
            "--epsilon is 300 in grey levels, 1/255 of the pixel range, expected in [0, 255]",
        ),
        ("attacks --systems nothing", "--systems nothing is unknown: the systems are percentile"),
        ("attacks --systems hybrid", "--systems hybrid is trained: say on how many images with --training-images"),
        ("attacks --images 20 --own-images 30", "--own-images is 30, but there are only 20 test images"),
        ("attacks --hardened ABSENT --images 9 --own-images 9", "no weights file at ABSENT"),
        ("reproduce cifar10 --seeds 0", "--seeds is 0, expected at least 1"),
        ("reproduce cifar10 --data-dir ABSENT", "the data folder ABSENT does not exist"),
        ("reproduce cifar10 --weights ABSENT", "no weights file at ABSENT"),
        ("bptt --repeats 0", "--repeats is 0, expected at least 1"),
        ("bptt --memory -1", "--memory is -1.0, expected above 0 and finite"),
        ("bptt --unrolled 5 0", "--unrolled is 0, expected at least 1"),
        ("bptt --unrolled", "--unrolled has no value: give one"),
        ("bptt --search HERE --out OUT", "results.json does not exist"),
        ("kills --mercy 1", "--mercy is 1.0, expected in [0, 1)"),
        ("kills --kills 0", "--kills is 0, expected at least 1"),
        ("scaling --processes 1", "--processes is 1, expected at least 2"),
        ("cloud_cost --utilisation 30", "--utilisation is 30.0, expected in (0, 1]"),
        ("kills --cases nothing", "--cases nothing is unknown: the cases are thresholds, few"),
        ("kills --json HELD", "HELD holds runs of other settings or another version: choose another --json"),
        ("fuzz --inputs 0", "--inputs is 0, expected at least 1"),
        ("fuzz --json HELD", "HELD holds files of other settings or another version: choose another --json"),
        ("fuzz_coverage --seconds 0", "--seconds is 0, expected at least 1"),
        ("fuzz_coverage --target nothing", "no reader 'nothing': the readers are checkpoint"),
        ("make_embedded --data-dir ABSENT", "the data folder ABSENT does not exist"),
    ],
)
def test_bad_input_is_one_clear_sentence(command, sentence, run, tmp_path):
    (tmp_path / "held.json").write_text('{"settings": {}, "results": {}}')
    (tmp_path / "broken.json").write_text("{")
    places = {"ABSENT": "absent", "HELD": "held.json", "BROKEN": "broken.json", "OUT": "out", "HERE": "."}
    for word, name in places.items():
        command, sentence = (text.replace(word, str(tmp_path / name)) for text in (command, sentence))
    code, said = run(*command.split())
    assert code == 2
    assert said.startswith("error: ") and sentence in said and len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_unknown_option_is_named(name, run):
    given = {"reproduce": ["cifar10"], "early_exit": ["RUN"]}.get(name, [])
    code, said = run(name, *given, "--no-such-option")
    assert code == 2 and "--no-such-option" in said and "Traceback" not in said


@pytest.mark.parametrize(
    "command, absent, sentence",
    [
        ("kills --checkpoints", "orbax", "--checkpoints needs Orbax (pip install orbax-checkpoint)"),
        ("fuzz_coverage --target weights", "atheris", "fuzzing needs Atheris"),
        ("throughput --contenders", "spikingjelly", "spikingjelly, not installed here"),
    ],
)
def test_a_program_that_is_not_installed_is_named(command, absent, sentence, run, monkeypatch):
    for name in [absent, *(name for name in sys.modules if name.startswith(f"{absent}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    contenders = ["jaxsnn XLA", "SpikingJelly"] if "--contenders" in command else []
    code, said = run(*command.split(), *contenders)
    assert code == 2 and sentence in said and len(said.strip().splitlines()) == 1


def test_debug_shows_where_an_error_came_from(run):
    code, said = run("cloud_cost", "--utilisation", "30", "--debug")
    assert code == 2 and "Traceback" in said and said.strip().splitlines()[-1].startswith("error: --utilisation")


def test_all_benchmarks_are_listed(capsys):
    runnable = {p.stem for p in FOLDER.glob("*.py") if 'if __name__ == "__main__":' in p.read_text()}
    runnable |= {p.parent.name for p in FOLDER.glob("*/__main__.py")}
    assert runnable - {"__main__"} == set(BENCHMARKS)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'.*' found in sys.modules", RuntimeWarning)
        runpy.run_module("benchmarks", run_name="__main__")
    said = capsys.readouterr().out
    for name in BENCHMARKS:
        assert f"benchmarks.{name} " in said
