"""A search from Python asks for the job that its arguments mean, and says what does not fit; no job is run."""

from dataclasses import replace

import numpy as np
import pytest

import data
from helpers.networks import dyadic_images, dyadic_snn, dyadic_thresholds
from jaxsnn.conversion.start import Start
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Genes
from jaxsnn.search import run
from jaxsnn.search.presets import FEW
from jaxsnn.search.settings import SearchSettings
from jaxsnn.simulation.observables import Observables
from jaxsnn.simulation.plan import Plan

SNN = dyadic_snn("residual")
START = Start(SNN, Genes(dyadic_thresholds(4)), dyadic_snn("residual", 1), 5)
LABELS = np.arange(30) % 3
SMALL = {"population": 4, "images": 20, "calibration_images": 30}


class Job:
    """What ``make_job`` was asked for; two generations."""

    def __init__(self, *given, **options):
        self.settings, self.snn, self.train, self.calibration = given
        self.options = options

    def start(self):
        return "state"

    def generations(self, state):
        return iter([("first", state), ("second", state)])


@pytest.fixture
def jobs(monkeypatch):
    made = []
    monkeypatch.setattr(run, "make_job", lambda *given, **options: made.append(Job(*given, **options)) or made[-1])
    monkeypatch.setattr(run, "calibrated_on", lambda settings, snn, train: ("calibrated", snn, len(train)))
    return made


def test_a_network_is_searched_from_its_percentiles(jobs):
    assert list(run.evolve(SNN, (dyadic_images(30), LABELS), **SMALL, plan=Plan(rows=7))) == ["first", "second"]
    (job,) = jobs
    assert job.settings == replace(SearchSettings(), **SMALL) and job.snn is SNN
    assert job.calibration == ("calibrated", SNN, 30)
    assert job.options == {"start": None, "plan": Plan(rows=7), "terms": None, "progress": None}
    assert job.train.classes == ("0", "1", "2") and job.train.labels.dtype == np.int32


def test_a_calibration_that_is_given_is_taken_and_needs_no_images(jobs):
    small = SMALL | {"calibration_images": 31}
    list(run.evolve(SNN, (dyadic_images(30), LABELS), calibration="mine", **small))
    assert jobs[0].calibration == "mine"


def test_around_a_calibrated_network_the_usual_search_is_of_few_timesteps(jobs):
    train = data.Dataset(dyadic_images(30), LABELS.astype(np.int32), ("a", "b", "c"), "own", "train", "arrays")
    list(run.evolve(START, train, images=20))  # more calibration images than there are, which nobody asks for
    list(run.evolve(START, train, settings=replace(FEW, timesteps=3, population=5), images=20))
    assert jobs[0].settings == replace(FEW, timesteps=5, images=20) and jobs[0].train is train
    assert jobs[1].settings == replace(FEW, timesteps=3, population=5, images=20)
    assert all(job.calibration is None and job.snn is START.ann for job in jobs)
    assert all(job.options["start"] is START for job in jobs)


def test_a_cost_of_one_s_own_is_the_only_term(jobs):
    list(run.evolve(SNN, (dyadic_images(30), LABELS), **SMALL, cost=lambda seen: seen.spikes.sum(-1)))
    (term,) = jobs[0].options["terms"]
    counts = np.array([[1, 2], [3, 4]])
    found = term(Observables(counts, 1, counts, counts))["cost"]
    assert found.tolist() == [3, 7] and found.dtype == np.float64


@pytest.mark.parametrize(
    "snn, images, changes, sentence",
    [
        (
            SNN,
            30,
            {"generation": 3},
            "^unknown setting of a search 'generation'; did you mean 'generations'\\? .{,120}$",
        ),
        (SNN, 30, {"population": 3}, "population is 3, expected at least 4"),
        (SNN, 30, {"start": "calibrated"}, "give what jaxsnn.calibrate returns instead of the network"),
        (SNN, 29, {}, "images is 20 and calibration_images 30, but there are only 29 training images"),
        (START, 19, {}, "but there are only 19 training images"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_made(jobs, snn, images, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        run.evolve(snn, (dyadic_images(images), LABELS[:images]), **SMALL | changes)
    with pytest.raises(UserError, match=r"takes images \(8, 8, 2\), but these are \(4, 4, 2\)"):
        run.evolve(SNN, (dyadic_images(30, (4, 4, 2)), LABELS), **SMALL)
    assert jobs == []
