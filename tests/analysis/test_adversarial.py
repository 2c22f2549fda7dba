"""Attacks: that they are those of an established library, stay inside the ball, and leave real images."""

import jax
import numpy as np
import pytest

from jaxsnn.analysis.adversarial import (
    Attack,
    AttackedImages,
    ann_victim,
    attack_of,
    other_classes,
    perturb,
    quantise,
    snn_victim,
)
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import shapes_of
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.search.cost import AccuracyLatency
from jaxsnn.search.objective import worse
from jaxsnn.simulation.observables import Observables
from jaxsnn.simulation.surrogate import float_pixels, surrogate_scores

EPSILON = 8 / 255


COUNT = 12


BATCH = 8  # one compiled shape for all tests, and a last batch that is not full


NETWORK = vgg([[4], [6]], [5], name="small", classes=3, input_shape=(8, 8, 2), mean=(0.4, 0.6), std=(0.2, 0.3))


@pytest.fixture(scope="module")
def snn():
    rng = np.random.default_rng(0)
    params = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes_of(NETWORK).items()}
    return SNN(NETWORK, params)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (COUNT, 8, 8, 2), dtype=np.uint8)


@pytest.fixture(scope="module")
def labels():
    return (np.arange(COUNT) % 3).astype(np.int32)


@pytest.fixture(scope="module")
def fgsm(snn, images, labels):
    return perturb(ann_victim(snn), Attack(), images, labels, batch=BATCH)


@pytest.fixture(scope="module")
def loss_and_gradient(snn, labels):
    """Each image's loss on the ANN, for pixels in [0, 1], and its gradient by them."""

    def losses(x):
        return -jax.nn.log_softmax(ann_forward(NETWORK, snn.params, x)[-1])[np.arange(COUNT), labels]

    def both(x):
        value, pull = jax.vjp(losses, x)
        return value, pull(jax.numpy.ones(COUNT))[0]

    return jax.jit(both)


@pytest.fixture(scope="module")
def gradient(loss_and_gradient, images):
    return np.asarray(loss_and_gradient(float_pixels(images))[1])


@pytest.fixture(scope="module")
def torch_model(snn):
    """The same network as a PyTorch module on pixels in [0, 1], NCHW."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    nn = torch.nn

    class Model(nn.Module):
        def forward(self, x):
            mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (NETWORK.mean, NETWORK.std))
            x = (x - mean) / std
            for name in ("conv1", "conv2"):
                kernel = torch.tensor(snn.params[f"{name}.kernel"]).permute(3, 2, 0, 1)
                x = nn.functional.relu(nn.functional.avg_pool2d(nn.functional.conv2d(x, kernel, padding=1), 2))
            x = x.permute(0, 2, 3, 1).flatten(1)
            x = nn.functional.relu(x @ torch.tensor(snn.params["dense1.kernel"]))
            return x @ torch.tensor(snn.params["dense2.kernel"])

    return Model().eval()


def of_library(attack, images, labels):
    """Attacked float pixels of a torchattacks attack, (N, H, W, C)."""
    torch = pytest.importorskip("torch")
    moved = attack(torch.tensor(float_pixels(images)).permute(0, 3, 1, 2), torch.tensor(labels, dtype=torch.int64))
    return moved.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("targeted", [False, True])
def test_fgsm_is_that_of_torchattacks(snn, images, labels, fgsm, gradient, torch_model, targeted):
    library = pytest.importorskip("torchattacks", reason="compares with torchattacks")
    theirs = library.FGSM(torch_model, eps=EPSILON)
    targets = (labels + 1) % 3 if targeted else None
    if targeted:
        theirs.set_mode_targeted_by_label()
        ours = perturb(ann_victim(snn), Attack(), images, labels, targets, batch=BATCH)
        expected = of_library(theirs, images, targets)
        clear = np.ones(images.shape, bool)
    else:
        ours, expected = fgsm, of_library(theirs, images, labels)
        # where the gradient all but vanishes, its sign is decided by rounding
        clear = (gradient == 0) | (np.abs(gradient) > 1e-6 * np.abs(gradient).max())
    np.testing.assert_array_equal(ours[clear], np.rint(expected * 255).astype(np.uint8)[clear])


@pytest.mark.parametrize("targeted", [False, True])
def test_pgd_is_that_of_torchattacks(snn, images, labels, torch_model, targeted):
    library = pytest.importorskip("torchattacks", reason="compares with torchattacks")
    theirs = library.PGD(torch_model, eps=EPSILON, alpha=3 / 255, steps=5, random_start=False)
    how = Attack("pgd", EPSILON, 5, 3 / 255, random_start=False)
    targets = (labels + 1) % 3 if targeted else None
    if targeted:
        theirs.set_mode_targeted_by_label()
    ours = perturb(ann_victim(snn), how, images, labels, targets, batch=BATCH)
    expected = quantise(images, of_library(theirs, images, targets if targeted else labels), EPSILON)
    np.testing.assert_array_equal(ours, expected)


def test_fgsm_moves_every_pixel_by_epsilon_along_the_gradient(images, fgsm, gradient):
    clear = (gradient == 0) | (np.abs(gradient) > 1e-6 * np.abs(gradient).max())
    expected = np.clip(images + 8 * np.sign(gradient), 0, 255)
    assert fgsm.dtype == np.uint8
    np.testing.assert_array_equal(fgsm[clear], expected[clear])
    assert (fgsm == 0).any() and (fgsm == 255).any()  # the box was met


def test_pgd_stays_in_the_ball_and_raises_the_loss(snn, images, labels, loss_and_gradient):
    how = Attack("pgd", 4.5 / 255, steps=5)
    attacked = perturb(ann_victim(snn), how, images, labels, batch=BATCH)
    assert np.abs(attacked.astype(int) - images).max() == 4  # whole levels within 4.5
    assert (loss_and_gradient(float_pixels(attacked))[0] > loss_and_gradient(float_pixels(images))[0]).all()


def test_a_random_start_belongs_to_the_image_not_to_its_batch(snn, images, labels):
    how = Attack("pgd", EPSILON, steps=2, seed=3)
    victim = ann_victim(snn)
    together = perturb(victim, how, images, labels, batch=BATCH)
    some = np.array([7, 2, 9, 4, 0, 8])
    alone = perturb(victim, how, images[some], labels[some], numbers=some)
    np.testing.assert_array_equal(alone, together[some])
    other = perturb(victim, Attack("pgd", EPSILON, steps=2, seed=4), images[some], labels[some], numbers=some)
    assert (other != alone).any()


def test_no_epsilon_changes_nothing(snn, images, labels):
    attacked = perturb(ann_victim(snn), Attack("fgsm", 0.0), images, labels, batch=BATCH)
    np.testing.assert_array_equal(attacked, images)


def test_pixels_are_rounded_towards_the_original():
    images = np.array([100, 100, 100, 100, 3, 250], np.uint8)
    moved = np.array([102.9, 97.1, 108.0004, 91.9996, -8, 263]) / 255
    np.testing.assert_array_equal(quantise(images, moved, EPSILON), [102, 98, 108, 92, 0, 255])


def test_the_snn_is_attacked_along_its_surrogate_gradient(snn, images, labels):
    images, labels = images[:8], labels[:8]
    theta = np.array([[0.6, 0.8, 0.7]], np.float32)
    dynamics, timesteps = Dynamics(delay="none"), 6

    def loss(x):
        scores = surrogate_scores(NETWORK, snn.params, Genes(theta[0]), x, timesteps, dynamics) / timesteps
        return -jax.nn.log_softmax(scores)[np.arange(8), labels].sum()

    gradient = np.asarray(jax.jit(jax.grad(loss))(float_pixels(images)))
    assert (gradient != 0).mean() > 0.5
    victim = snn_victim(snn, Genes(theta), timesteps, dynamics)
    attacked = perturb(victim, Attack("fgsm", 2 / 255), images, labels)
    clear = (gradient == 0) | (np.abs(gradient) > 1e-5 * np.abs(gradient).max())
    expected = np.clip(images + 2 * np.sign(gradient), 0, 255)
    np.testing.assert_array_equal(attacked[clear], expected[clear])


def test_images_of_the_training_set_are_attacked_once(snn, images, labels, fgsm):
    attacked = AttackedImages(ann_victim(snn), Attack(), images, labels)
    np.testing.assert_array_equal(attacked(np.arange(6)), fgsm[:6])
    assert attacked.gradient_passes == 6
    np.testing.assert_array_equal(attacked(np.array([5, 7, 5, 8, 9, 10, 11])), fgsm[[5, 7, 5, 8, 9, 10, 11]])
    assert attacked.gradient_passes == 11


def counts(correct, limit):
    correct = np.array(correct)
    return Observables(correct, 10, np.ones((2, 3), int), np.ones((2, 3), int), np.array(limit), 20)


def test_both_adds_the_counts_of_clean_and_attacked_images():
    both = counts([[1, 5], [2, 9]], [12, 14]) + counts([[0, 3], [1, 1]], [2, 4])
    assert both.images == 20 and both.limit_images == 40
    np.testing.assert_array_equal(both.correct, [[1, 8], [3, 10]])
    np.testing.assert_array_equal(both.limit_correct, [14, 18])


def test_worst_takes_the_costlier_counts_of_each_candidate():
    clean, attacked = counts([[1, 5], [2, 9]], [12, 14]), counts([[0, 6], [1, 1]], [2, 4])
    found = worse([AccuracyLatency(0, 0, 1)], clean, attacked)
    np.testing.assert_array_equal(found.correct, [[1, 5], [1, 1]])
    np.testing.assert_array_equal(found.limit_correct, [12, 4])
    assert found.images == 10 and found.limit_images == 20


def test_targets_are_other_classes():
    labels = np.arange(300) % 10
    targets = other_classes(labels, 10)
    assert (targets != labels).all() and set(targets) == set(range(10))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Attack(epsilon=-0.1), r"epsilon is -0.1 in units of the pixel range, expected in \[0, 1\]"),
        (lambda: Attack(epsilon=8), r"epsilon is 8 in units of the pixel range, expected in \[0, 1\]: .* 8 / 255"),
        (lambda: Attack(epsilon=float("nan")), "epsilon is nan"),
        (lambda: Attack("deepfool"), "expected fgsm or pgd"),
        (lambda: Attack("pgd", steps=0), "0 steps"),
        (lambda: Attack("pgd", step_size=0.0), "the attack's step is 0"),
        (lambda: attack_of("fgsm", -1), r"--epsilon is -1 in grey levels, 1/255 of the pixel range"),
        (lambda: attack_of("fgsm", 256), r"expected in \[0, 255\]"),
        (
            lambda: attack_of("fgsm", 8 / 255),
            "less than one grey level.* in units of 1/255, 8 for",
        ),
        (lambda: other_classes(np.zeros(3, int), 1), "at least 2 classes"),
    ],
)
def test_bad_input_is_refused(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


def test_a_network_without_gradients_is_refused(snn):
    genes = Genes(np.ones((1, 3)))
    with pytest.raises(UserError, match="an SNN in int8 has no gradient to attack: craft the attack on the ANN"):
        snn_victim(snn, genes, 20, precision="int8")
    with pytest.raises(UserError, match="reaches the read-out only after 3 steps"):
        snn_victim(snn, genes, 3)
