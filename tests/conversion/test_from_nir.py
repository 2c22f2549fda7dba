"""NIR files come in as they went out, from other hands as their nodes say, and hostile ones end in a sentence."""

import itertools
import shutil

import numpy as np
import pytest

from helpers.networks import dyadic_images, dyadic_snn, random_snn, with_all_ops
from jaxsnn.conversion import from_nir, nir_file
from jaxsnn.conversion.from_nir import read_nir
from jaxsnn.errors import UserError
from jaxsnn.exports.converted import Converted
from jaxsnn.exports.nir_graph import Dialect, nir_graph
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.simulation.observe import record

nir = pytest.importorskip("nir")
h5py = pytest.importorskip("h5py")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Files are read in a process of their own, which most tests here need not wait for."""
    monkeypatch.setattr(from_nir, "read_tree", nir_file.tree_of)


def test_a_process_of_its_own_reads_the_same_and_may_break_down(tmp_path, monkeypatch):
    path = tmp_path / "a.nir"
    nir.write(path, foreign())
    ours, theirs = nir_file.tree_of(path), nir_file.read_tree(path)
    assert theirs["nodes"].keys() == ours["nodes"].keys()
    assert theirs["nodes"]["one"]["type"] == "Affine"
    np.testing.assert_array_equal(theirs["edges"], ours["edges"])
    np.testing.assert_array_equal(theirs["nodes"]["one"]["weight"], ours["nodes"]["one"]["weight"])
    path.write_bytes(b"not HDF5")
    with pytest.raises(UserError, match=r"a\.nir is not a readable NIR file"):
        nir_file.read_tree(path)
    monkeypatch.setattr(nir_file.sys, "executable", shutil.which("false"))
    with pytest.raises(UserError, match="HDF5 broke down on it"):
        nir_file.read_tree(path)
    with pytest.raises(UserError, match="does not exist"):
        nir_file.read_tree(tmp_path / "b.nir")


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("name", ["pool_before", "bias", "residual", "all ops"])
def test_what_was_exported_comes_back_as_the_same_network(name, sums, tmp_path):
    snn = random_snn(with_all_ops(even=True) if name == "all ops" else dyadic_snn(name).network)
    layers = len(snn.network.spiking)
    genes = Genes(np.full((1, layers), 0.5), np.full((1, layers), 0.25))
    one = Converted(snn, genes, Dynamics(">=", "none"), 8)
    nir.write(tmp_path / "a.nir", nir_graph(one, Dialect(sum_pools=sums)))
    found = read_nir(tmp_path / "a.nir")
    assert (found.timesteps, found.dynamics) == (8, one.dynamics)
    images = dyadic_images(6, snn.network.input_shape)
    scores = [record(each.snn, each.genes, images, 8, one.dynamics)[2][0] for each in (one, found)]
    assert np.abs(scores[0]).max() > 0
    close = np.isclose(*scores, atol=1e-4).all(-1)
    assert close.mean() > 0.95  # a sum beside a threshold may round to its other side


def foreign(**changes):
    """A small graph from other hands: LIF neurons of several thresholds, no metadata."""
    weight = np.arange(24, dtype=np.float32).reshape(3, 8) / 16
    numbers = {"tau": 2e-4, "r": 2.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0} | changes
    lif = {key: np.broadcast_to(np.float32(value), 3).copy() for key, value in numbers.items()}
    nodes = {
        "input": nir.Input(input_type={"input": np.array([2, 2, 2])}),
        "flat": nir.Flatten(input_type={"input": np.array([2, 2, 2])}, start_dim=0, end_dim=-1),
        "one": nir.Affine(weight=weight, bias=np.float32([0.5, 0, 0])),
        "lif": nir.LIF(**lif),
        "two": nir.Linear(weight=np.eye(3, dtype=np.float32)),
        "output": nir.Output(output_type={"output": np.array([3])}),
    }
    names = list(nodes)
    return nir.NIRGraph(nodes=nodes, edges=list(itertools.pairwise(names)))


def test_lif_nodes_leak_and_thresholds_of_their_own_are_divided_out(tmp_path):
    nir.write(tmp_path / "a.nir", foreign(v_threshold=[1.0, 2.0, 4.0]))
    found = read_nir(tmp_path / "a.nir")
    np.testing.assert_allclose(found.genes.leak, [[0.5]])
    assert found.timesteps is None and any("comparison" in note for note in found.notes)
    kernel = np.asarray(found.snn.params[found.snn.network.layers[0].edges[0].ops[-1].name + ".kernel"])
    first = np.arange(24).reshape(3, 8) / 16 * (2.0 * 0.5) / np.array([[1], [2], [4]])
    ours = first.reshape(3, 2, 2, 2).transpose(2, 3, 1, 0).reshape(8, 3)  # channels last
    np.testing.assert_allclose(kernel, ours, rtol=1e-6)


def broken(path, change):
    """A good file, changed through HDF5."""
    nir.write(path, foreign())
    with h5py.File(path, "a") as file:
        change(file, file["node/nodes"])
    return path


def replaced(group, name, **options):
    del group[name]
    return group.create_dataset(name, **options)


def linked(file, nodes):
    del nodes["one/weight"]
    nodes["one/weight"] = h5py.ExternalLink("/etc/passwd", "/weight")


def soft(file, nodes):
    del nodes["one/weight"]
    nodes["one/weight"] = h5py.SoftLink("/node/nodes/two/weight")


def external(file, nodes):
    del nodes["one/weight"]
    nodes["one"].create_dataset("weight", (3, 8), "f4", external=[("/etc/passwd", 0, 96)])


def virtual(file, nodes):
    layout = h5py.VirtualLayout((3, 8), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "weight", (3, 8))
    del nodes["one/weight"]
    nodes["one"].create_virtual_dataset("weight", layout)


def circle(file, nodes):
    nodes["one/again"] = nodes


TEXT = h5py.string_dtype()
HOSTILE = {
    "links to another file": (linked, "link out of its place"),
    "links to elsewhere": (soft, "link out of its place"),
    "data in another file": (external, "in another file"),
    "virtual data": (virtual, "in another file"),
    "a group in itself": (circle, "nested too deeply|is neither|no graph"),
    "claimed": (
        lambda f, n: replaced(n["one"], "weight", shape=(3, 1 << 40), dtype="f4", chunks=(1, 1024)),
        "claims .* bytes, which the file does not hold",
    ),
    "another filter": (
        lambda f, n: replaced(n["one"], "weight", data=np.ones((3, 8)), chunks=(3, 8), compression="lzf"),
        "needs a filter",
    ),
    "not finite": (lambda f, n: n["one/weight"].__setitem__((0, 0), np.nan), "no finite numbers weight"),
    "text for numbers": (lambda f, n: replaced(n["one"], "weight", data="three"), "no finite numbers weight"),
    "another size": (lambda f, n: replaced(n["one"], "weight", data=np.ones((3, 9))), "for an input of shape"),
    "an unknown node": (lambda f, n: replaced(n["lif"], "type", data="CubaLIF"), "'CubaLIF', which cannot be"),
    "a threshold of 0": (lambda f, n: n["lif/v_threshold"].__setitem__(0, 0.0), "not positive"),
    "a circle": (
        lambda f, n: replaced(
            f["node"], "edges", data=[["one", "lif"], ["lif", "one"]], dtype=h5py.string_dtype()
        ),
        "has a cycle",
    ),
    "nowhere": (
        lambda f, n: replaced(f["node"], "edges", data=[["input", "x"]], dtype=TEXT),
        "which is no node",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_end_in_a_sentence(what, tmp_path):
    change, words = HOSTILE[what]
    with pytest.raises(UserError, match=words) as caught:
        read_nir(broken(tmp_path / "a.nir", change))
    assert len(str(caught.value)) < 600


def test_what_is_no_hdf5_ends_in_a_sentence(tmp_path):
    path = tmp_path / "a.nir"
    nir.write(path, foreign())
    content = path.read_bytes()
    for part in (b"", b"not HDF5", content[: len(content) // 2], content[:600]):
        path.write_bytes(part)
        with pytest.raises(UserError, match=r"a\.nir is not a readable NIR file"):
            read_nir(path)
