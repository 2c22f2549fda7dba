"""Energy: counted by hand on small networks, and as SpikingJelly and NeuroBench count, where those are there."""

import json

import numpy as np
import pytest

from helpers.networks import dyadic_images, dyadic_snn
from jaxsnn.analysis.energy import HOROWITZ, Costs, ann_energy, energy_record, read_costs, snn_energy
from jaxsnn.analysis.memory_energy import ann_with_memory, byte_cost, snn_with_memory
from jaxsnn.analysis.neurobench import neurobench
from jaxsnn.analysis.operations import Activity, macs, neurons
from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Edge, Layer, Network, shapes_of
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation.observe import record

CHAIN = Network(
    "chain",
    (8, 8, 2),
    3,
    (
        Layer("a", (Edge(IMAGE, (Conv("a", 4),)),)),
        Layer("b", (Edge(0, (Conv("b", 6, 3, 2, bias=True),)),)),
        Layer("c", (Edge(1, (Dense("c", 3),)),)),
    ),
    (0.0, 0.0),
    (1 / 255.0, 1 / 255.0),
)
ACTIVITY = Activity(5, (820.0, 379.0), (9000.0, 1137.0))


def test_macs_are_the_products_without_padding():
    inside = 22 * 22  # taps of 3 that fall onto 8 positions, along both axes
    assert macs(CHAIN) == (inside * 2 * 4, 11 * 11 * 4 * 6, 96 * 3)
    assert neurons(CHAIN) == (256, 96)
    assert macs(dyadic_snn("residual").network)[1] == inside * 4 * 4  # a shortcut multiplies nothing


def test_the_image_is_macs_and_spikes_are_additions():
    costs = HOROWITZ["FP32"]
    assert snn_energy(CHAIN, ACTIVITY, costs) == pytest.approx((3872 * 4.6, 9000 * 0.9, 1137 * 0.9))
    assert ann_energy(CHAIN, costs) == pytest.approx((3872 * 4.6, 2904 * 4.6, 288 * 4.6))
    own = Costs(1.0, 0.5, membrane=0.25, spike=2.0, image_every_step=True)
    expected = (3872 * 5, 4500 + 820 * 2 + 256 * 5 * 0.25, 568.5 + 379 * 2 + 96 * 5 * 0.25)
    assert snn_energy(CHAIN, ACTIVITY, own) == pytest.approx(expected)


def test_the_record_adds_up_and_is_json():
    record = energy_record(CHAIN, {"baseline": ACTIVITY}, {"chip": Costs(1, 1)})
    assert record["layers"] == ["image", "a", "b"] and list(record["kinds"]) == [*HOROWITZ, "chip", "with memory"]
    for kind, total in record["totals"].items():
        assert total["ann"] == pytest.approx(sum(record["kinds"][kind]["ann"]))
    assert record["totals"]["FP32"]["baseline"] == pytest.approx((3872 * 4.6 + 10137 * 0.9) * 1e-6)
    assert json.loads(json.dumps(record)) == record


def test_constants_of_ones_own_are_read_and_checked(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text("[chip]\nmac = 3.1\nadd = 0.1\nmembrane = 0.2\n")
    assert read_costs(path) == {"chip": Costs(3.1, 0.1, 0.2)}
    for text, words in (
        ("", "no table of picojoules"),
        ("mac = 1", "expected a JSON object"),
        ("[chip]\nmac = 1", "has no add"),
        ("[chip]\nmac = 1\nadd = -1", "expected at least 0"),
        ("[chip]\nmac = 1\nadd = nan", "expected a finite number"),
        ("[chip]\nmac = 1\nadd = 1\nmul = 1", "has mul, expected some of mac, add"),
        ("[FP32]\nmac = 1\nadd = 1", "taken"),
        ("[chip", "is not TOML"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read_costs(path)


def test_a_byte_costs_what_its_buffer_makes_it_cost():
    kib = 1024
    assert [byte_cost(n * kib) for n in (0, 4, 8, 20, 32, 1024, 9999)] == pytest.approx(
        [0, 1.25, 2.5, 3.75, 5, 25, 25]
    )
    assert snn_with_memory(CHAIN, ACTIVITY)[0] < ann_with_memory(CHAIN)[0]  # the ANN writes its output as well


def test_memory_costs_what_spikingjelly_says():
    jelly = pytest.importorskip("spikingjelly.activation_based")
    torch = pytest.importorskip("torch")
    from spikingjelly.activation_based import layer, neuron, op_counter

    spikes = [0.0, 0.0]

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (neuron.IFNode(v_reset=None) for _ in range(2))
            self.a, self.b = layer.Conv2d(2, 4, 3, padding=1, bias=False), layer.Conv2d(4, 6, 3, 2, 1)
            self.c = layer.Linear(96, 3, bias=False)
            for one in (self.a, self.b):
                one.weight.data.abs_()

        def forward(self, x):
            drive = self.a(x)
            for _ in range(5):
                one = self.first(drive)
                two = self.second(self.b(one))
                spikes[0], spikes[1] = spikes[0] + one.sum().item(), spikes[1] + two.sum().item()
                out = self.c(two.flatten(1))
            return out

    config = op_counter.LemaireEnergyConfig(strict=False)
    theirs = op_counter.estimate_lemaire_energy(Net(), torch.rand(1, 2, 8, 8), config=config)
    assert min(spikes) > 0 and jelly is not None
    ours = snn_with_memory(CHAIN, Activity(5, tuple(spikes), (0.0, 0.0)))
    assert sum(ours) == pytest.approx(theirs.total_pj, rel=1e-9)


def pooled_snn():
    """A pool in front of a map and one behind, some weights 0."""
    layers = (
        Layer("a", (Edge(IMAGE, (Conv("a", 4), AvgPool(2))),)),
        Layer("b", (Edge(0, (AvgPool(2), Conv("b", 6))),)),
        Layer("c", (Edge(1, (Dense("c", 3),)),)),
    )
    network = Network("pooled", (8, 8, 2), 3, layers, (0.0, 0.0), (1 / 255.0, 1 / 255.0))
    rng = np.random.default_rng(0)
    params = {
        name: (rng.integers(-1, 3, shape) / 4).astype(np.float32) for name, shape in shapes_of(network).items()
    }
    return SNN(network, params)


def test_neurobench_counts_by_hand_what_the_simulator_recorded():
    snn, images, steps = pooled_snn(), dyadic_images(3), 6
    genes = Genes(np.array([[2.0, 1.0]]), np.array([[0.5, 0.5]]))
    found = neurobench(snn, genes, images, timesteps=steps, image_every_step=False)
    _, spikes, _ = record(snn, genes, images, steps, Dynamics(delay="none"))
    first, second = (s[0].astype(float) for s in spikes)
    share = sum(s.sum() for s in (first, second)) / sum(s.size for s in (first, second))
    assert found.activation_sparsity == pytest.approx(1 - share)
    reached = (second.reshape(steps * 3, -1) @ (snn.params["c.kernel"] != 0)).sum()
    assert found.effective_acs == pytest.approx(reached / 3)
    # taps of 3 on 8 positions (22) and on 2 (4), along both axes; the image's map once
    assert found.dense == 22 * 22 * 2 * 4 + steps * (4 * 4 * 4 * 6 + 24 * 3)


def test_neurobench_itself_says_the_same():
    torch, neuro = pytest.importorskip("torch"), pytest.importorskip("neurobench")
    snntorch = pytest.importorskip("snntorch")
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
    from neurobench.models import TorchModel
    from torch import nn

    class Neurons(snntorch.Leaky):
        """snnTorch's, but that one spike takes one threshold off however full the membrane is."""

        def forward(self, x):
            before = self.mem if self.mem.shape == x.shape else torch.full_like(x, 0.5) * self.threshold
            fired = (before + x > self.threshold).float()
            self.mem = before + x - self.threshold * fired
            return fired

    snn, steps = pooled_snn(), 6
    theta = (2.0, 1.0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.Conv2d(4, 6, 3, padding=1, bias=False)
            self.c = nn.Linear(24, 3, bias=False)
            for one, name in ((self.a, "a"), (self.b, "b")):
                one.weight.data = torch.from_numpy(snn.params[f"{name}.kernel"].transpose(3, 2, 0, 1).copy())
            dense = snn.params["c.kernel"].reshape(2, 2, 6, 3).transpose(2, 0, 1, 3).reshape(24, 3)
            self.c.weight.data = torch.from_numpy(dense.T.copy())
            self.first, self.second = (Neurons(beta=1.0, threshold=t, init_hidden=True) for t in theta)

        def forward(self, x):
            total = 0
            self.first.mem = self.second.mem = torch.zeros(0)
            for _ in range(steps):
                one = self.first(nn.functional.avg_pool2d(self.a(x), 2))
                two = self.second(theta[0] * self.b(nn.functional.avg_pool2d(one, 2)))
                total = total + theta[1] * self.c(two.flatten(1))
            return total

    images, labels = dyadic_images(6), torch.zeros(6, dtype=torch.long)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    model = TorchModel(Net())
    model.add_activation_module(snntorch.SpikingNeuron)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(pixels, labels), batch_size=6)
    workload = [ActivationSparsity, SynapticOperations, MembraneUpdates]
    with torch.no_grad():
        theirs = Benchmark(model, loader, [], [], [[], workload]).run(quiet=True)
    assert neuro is not None
    ours = neurobench(snn, Genes(np.array([theta]), np.full((1, 2), 0.5)), images, timesteps=steps).to_json()
    flat = {**theirs.pop("SynapticOperations"), **theirs}
    assert ours == pytest.approx({name: float(flat[name]) for name in ours}, rel=1e-6)
    assert ours["Effective_ACs"] > 0 and 0 < ours["ActivationSparsity"] < 1
