"""The launch files, the Dockerfile and the commands in the texts: nothing in them that the programs do not know.

The schemas of Kubernetes and SkyPilot are checked by .ci/check_launch.py, which needs their packages.
"""

import argparse
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import tyro
import yaml

from benchmarks import cloud_cost
from jaxsnn.search.presets import PRESETS

ROOT = Path(__file__).parents[2]


LAUNCH = ROOT / "launch"


DOCS = [page for page in sorted((ROOT / "docs").glob("*.md")) if "python -m " in page.read_text()]


TEXTS = [ROOT / "README.md", *DOCS, ROOT / "Dockerfile", *sorted(LAUNCH.iterdir())]


SBATCH = {
    *("account", "array", "comment", "constraint", "cpus-per-task", "dependency", "error", "exclude", "exclusive"),
    *("export", "gpus", "gpus-per-node", "gpus-per-task", "gres", "job-name", "mail-type", "mail-user", "mem"),
    *("nodelist", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "partition", "qos", "requeue"),
    *("no-requeue", "signal", "time", "time-min"),
}
"""Options of sbatch that are known here, from Slurm's manual page."""


JOBSET = {
    "coordinator": dict,
    "failurePolicy": dict,
    "managedBy": str,
    "network": dict,
    "replicatedJobs": list,
    "startupPolicy": dict,
    "successPolicy": dict,
    "suspend": bool,
    "ttlSecondsAfterFinished": int,
}
"""Fields of a JobSet's spec and of what is below, from kubernetes-sigs/jobset, jobset.x-k8s.io_jobsets.yaml."""


FAILURE_POLICY = {"maxRestarts": int, "restartStrategy": str, "rules": list}


RULE = {"name": str, "action": str, "onJobFailureReasons": list, "targetReplicatedJobs": list}


REPLICATED_JOB = {"name": str, "groupName": str, "replicas": int, "template": dict, "dependsOn": list}


ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}


REASONS = {
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "FailedIndexes",
    "MaxFailedIndexesExceeded",
    "PodFailurePolicy",
}


def jobset():
    """The JobSet of launch/jobset.yaml."""
    documents = yaml.safe_load_all((LAUNCH / "jobset.yaml").read_text())
    return next(document for document in documents if document["kind"] == "JobSet")


def shell_parts():
    """(name, text) of every piece of shell in launch/."""
    for path in sorted(LAUNCH.iterdir()):
        if path.suffix in (".sh", ".sbatch"):
            yield path.name, path.read_text()
        elif path.name.startswith("skypilot"):
            task = yaml.safe_load(path.read_text())
            yield f"{path.name}: setup", task["setup"]
            yield f"{path.name}: run", task["run"]


def commands_in(text):
    """Command lines of our modules in a text as (module, arguments); launch/run.sh is jaxsnn.optimize --out."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for match in re.finditer(r"python -m ((?:jaxsnn|benchmarks)\.\w+)([^\n`|&;)]*)", joined):
        yield match[1], shlex.split(match[2], comments=True)
    for match in re.finditer(r"^(?:srun .*)?launch/run\.sh (?!RUN)([^\n]*)", joined, re.MULTILINE):
        run, *options = shlex.split(match[1])
        yield "jaxsnn.optimize", ["--out", run, *options]


def commands():
    """Every command line of ours in launch/, Dockerfile and the texts."""
    for path in TEXTS:
        if path.name == "jobset.yaml":
            for job in jobset()["spec"]["replicatedJobs"]:
                for container in job["template"]["spec"]["template"]["spec"]["containers"]:
                    program, run, *options = container["command"]
                    assert program == "/app/launch/run.sh"
                    yield path.name, "jaxsnn.optimize", ["--out", run, *options]
        else:
            text = yaml.safe_load(path.read_text())["run"] if path.suffix == ".yaml" else path.read_text()
            for module, arguments in commands_in(text):
                if path.name != "run.sh":  # its options are the caller's
                    yield path.name, module, arguments


class Parsed(Exception):
    """Ends a module where it has parsed its command line."""


@pytest.fixture
def parse(monkeypatch):
    """Parse a command line with the parser of the module that it is for, and stop there; returns the result."""

    def stopping(real):
        def stop(*args, **kwargs):
            raise Parsed(real(*args, **kwargs))

        return stop

    real = tyro.cli, argparse.ArgumentParser.parse_args

    def parse(module, arguments):
        monkeypatch.setattr(tyro, "cli", stopping(real[0]))
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stopping(real[1]))
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(Parsed) as parsed, warnings.catch_warnings():
            # a module imported before stays where it is: a second copy of it would outlive this test
            warnings.filterwarnings("ignore", "'.*' found in sys.modules", RuntimeWarning)
            runpy.run_module(module, run_name="__main__")
        return parsed.value.args[0]

    return parse


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_commands_are_understood(text, parse):
    found = [(module, arguments) for name, module, arguments in commands() if name == text.name]
    assert found or text.name == "run.sh"
    for module, arguments in found:
        if arguments[:1] != ["--help"]:
            parse(module, arguments)


def test_an_unknown_option_is_found(parse):
    ((module, arguments),) = commands_in("see `python -m jaxsnn.optimize \\\n  --no-such-option 3` # why")
    assert arguments == ["--no-such-option", "3"]
    with pytest.raises(SystemExit):
        parse(module, arguments)


@pytest.mark.parametrize(("name", "text"), list(shell_parts()), ids=lambda part: part if len(part) < 40 else "")
def test_shell_is_valid(name, text):
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert done.returncode == 0, f"{name}: {done.stderr}"


def test_several_devices_are_the_ones_asked_for(parse):
    """--mesh names as many devices as a process has, in every launch file."""
    meshes = {
        name: parse(module, arguments).mesh
        for name, module, arguments in commands()
        if "--distributed" in arguments
    }
    options = dict(sbatch_options())
    template = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    ours = {
        "slurm.sbatch": int(options["gpus-per-node"]) // int(options["ntasks-per-node"]),
        "jobset.yaml": template["containers"][0]["resources"]["limits"]["google.com/tpu"],
        "skypilot-tpu.yaml": 4,  # chips a host of a v5e slice of several hosts
    }
    assert {name: mesh[0] * mesh[1] for name, mesh in meshes.items() if name in ours} == ours


def sbatch_options():
    """(name, value) of each #SBATCH line."""
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    return [line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH")]


def test_sbatch_options_exist():
    options = dict(sbatch_options())
    assert options.keys() <= SBATCH
    assert options["ntasks-per-node"] == "1"
    assert re.fullmatch(r"TERM@\d+", options["signal"])
    devices = re.search(r"JAX_LOCAL_DEVICE_IDS=([\d,]+)", (LAUNCH / "slurm.sbatch").read_text())[1].split(",")
    assert devices == [str(n) for n in range(int(options["gpus-per-node"]))]


def check_fields(given, known, required=()):
    """Only known fields, of their type, and all that are required."""
    assert given.keys() <= known.keys()
    assert set(required) <= given.keys()
    for name, value in given.items():
        assert isinstance(value, known[name]), name


def test_jobset_fields():
    document = jobset()
    assert document.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert document["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    spec = document["spec"]
    check_fields(spec, JOBSET)
    check_fields(spec["failurePolicy"], FAILURE_POLICY)
    for rule in spec["failurePolicy"]["rules"]:
        check_fields(rule, RULE, required=("name", "action"))
        assert rule["action"] in ACTIONS
        assert set(rule["onJobFailureReasons"]) <= REASONS
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    for job in spec["replicatedJobs"]:
        check_fields(job, REPLICATED_JOB, required=("name", "template"))


def test_jobset_fills_its_slice():
    """As many pods as hosts, all chips of each."""
    (job,) = jobset()["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    rows, columns = map(int, topology.split("x"))
    assert spec["parallelism"] == spec["completions"] == rows * columns // chips
    assert spec["completionMode"] == "Indexed"
    assert pod["restartPolicy"] == "Never"  # a podFailurePolicy needs it


def test_image_has_what_its_build_copies():
    """What the Dockerfile copies, and what the package is built from, is not left out by .dockerignore."""
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {name for name in copied if name != "."} | {"pyproject.toml", "jaxsnn", "evo", "data"} <= kept
    assert all((ROOT / name).exists() for name in kept)


def stub(folder, **programs):
    """Programs of these names and texts, and the environment in which they are found first."""
    for name, text in programs.items():
        path = folder / name
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (0, False), (1, False)])
def test_slurm_job_goes_back_into_the_queue_only_where_it_was_stopped(tmp_path, code, requeued):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    environment = stub(tmp_path, srun=f"exit {code}", scontrol='echo "$@"')
    environment |= {"SLURM_JOB_ID": "7", "DATA": "there"}
    done = subprocess.run(
        ["bash", LAUNCH / "slurm.sbatch"], cwd=tmp_path, env=environment, text=True, capture_output=True
    )
    assert done.returncode == code
    assert done.stdout == ("requeue 7\n" if requeued else "")


@pytest.mark.parametrize(
    ("child", "code"),
    [
        ("exit 0", 0),
        ("exit 2", 2),
        ('trap "exit 0" TERM; touch ready; while :; do sleep 0.05; done', 75),
        ("touch ready; exec sleep 60", 75),  # SIGTERM before the command has its handler
        ('trap "exit 2" TERM; touch ready; while :; do sleep 0.05; done', 2),
        ('trap "mkdir run; touch run/results.json; exit 0" TERM; touch ready; while :; do sleep 0.05; done', 0),
    ],
)
def test_run_script_tells_stopped_from_finished(tmp_path, child, code):
    environment = stub(tmp_path, python=child)
    process = subprocess.Popen([LAUNCH / "run.sh", "run", "--seed", "1"], cwd=tmp_path, env=environment)
    if "ready" in child:
        deadline = time.monotonic() + 20
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == code


def test_run_script_leaves_a_finished_run_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").touch()
    environment = stub(tmp_path, python="exit 9")
    done = subprocess.run(
        [LAUNCH / "run.sh", "run"], cwd=tmp_path, env=environment, text=True, capture_output=True
    )
    assert (done.returncode, done.stdout) == (0, "run is finished\n")


def test_cost_of_table_one():
    """CIFAR-10: 25 candidates, 27 generations with the first, 3,000 images, 100 steps less 14 of delay."""
    network = cloud_cost.network_of("cifar10")
    itc = cloud_cost.work(PRESETS["cifar10"], network)
    assert itc == 25 * 27 * 3000 * (100 - 14)
    seconds = cloud_cost.roofline_seconds(itc, network, 1e12, 1)
    assert cloud_cost.roofline_seconds(itc, network, 2e12, 0.25) == pytest.approx(2 * seconds)
    assert set(PRESETS) - {"demo", "few", "thresholds"} == set(cloud_cost.NETWORKS)


def test_cost_page_is_what_the_command_prints():
    page = (ROOT / "docs" / "long-runs-and-cloud.md").read_text()
    assert cloud_cost.table(cloud_cost.CostConfig().utilisation) in page
    assert (
        f"| jaxsnn, event-driven, int8 | {cloud_cost.CPU_RATE:,} |" in (ROOT / "docs" / "results.md").read_text()
    )
