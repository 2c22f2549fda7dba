"""A checkpoint of training that was damaged, or is another network's, is refused and nothing of it taken."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxsnn.errors import UserError
from jaxsnn.training.loop import Place, load_checkpoint, save_checkpoint


class Arrays:
    """What a descent holds, without a network."""

    def __init__(self):
        self.held = [np.zeros((2, 3), np.float32), np.zeros(3, np.int32)]

    def arrays(self):
        return self.held

    def restore(self, arrays):
        self.held = arrays


PLACE = Place(3, np.ones((2, 1), np.float32), 12.5, False)


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    save_checkpoint(tmp_path / "a", Arrays(), PLACE)
    descent = Arrays()
    found = load_checkpoint(tmp_path / "a", descent)
    assert (found.epoch, found.seconds, found.whole) == (3, 12.5, False)
    assert np.array_equal(found.scalars, PLACE.scalars) and len(descent.held) == 2


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"place": np.array([np.inf, 0, 1])}, "not a checkpoint of this run"),
        ({"place": np.array([np.nan, 0, 1])}, "not a checkpoint of this run"),
        ({"place": np.array([-1.0, 0, 1])}, "at no place of a training"),
        ({"place": np.array([1.5, 0, 1])}, "at no place of a training"),
        ({"place": np.array([1.0, 0, -5])}, "at no place of a training"),
        ({"place": np.array(1.0)}, "not a checkpoint of this run"),
        ({"scalars": np.ones(2)}, "at no place of a training"),
        ({"scalars": np.ones((2, 1), np.int8)}, "at no place of a training"),
        ({"00000": np.zeros((2, 3), np.int8)}, "the checkpoint of another network"),
        ({"00001": np.zeros((4,), np.int32)}, "the checkpoint of another network"),
    ],
)
def test_what_no_training_wrote_is_refused(changes, sentence, tmp_path):
    whole = {"00000": np.zeros((2, 3), np.float32), "00001": np.zeros(3, np.int32)}
    whole |= {"place": np.array([3.0, 0, 12.5]), "scalars": np.ones((2, 1), np.float32)}
    save_file(whole | changes, tmp_path / "a")
    descent = Arrays()
    with pytest.raises(UserError, match=sentence):
        load_checkpoint(tmp_path / "a", descent)
    assert not any(array.any() for array in descent.held)
