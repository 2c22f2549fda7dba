"""What `data.load` tells of its progress: shares from 0 to 1, and nothing on the screen."""

import numpy as np
import pytest
from PIL import Image

import data
from data.progress import watched


def _tree(root, count):
    for name in ("a", "b"):
        (root / "train" / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(root / "train" / name / f"{i}.png")


def test_the_share_rises_from_nothing_to_all_and_nothing_is_printed(tmp_path, capsys):
    _tree(tmp_path, 4)
    shares = []
    dataset = data.load("imagefolder", "train", tmp_path, size=None, progress=shares.append)
    assert len(dataset) == 8
    assert shares[0] == 0.0 and shares[-1] == 1.0 and shares == sorted(shares)
    assert set(np.arange(9) / 8) <= set(shares)
    assert capsys.readouterr() == ("", "")


def test_what_progress_raises_ends_the_loading(tmp_path):
    _tree(tmp_path, 2)

    def stop(share):
        if share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.load("imagefolder", "train", tmp_path, size=None, progress=stop)


def test_a_wrong_argument_is_refused_before_anything_is_told():
    shares = []
    with pytest.raises(data.DataError, match="unknown dataset"):
        data.load("cifar11", progress=shares.append)
    assert shares == []


@pytest.mark.parametrize(("total", "calls"), [(1, 1), (7, 7), (100, 100), (1234, 100)])
def test_items_pass_unchanged_and_at_most_a_hundred_shares_are_told(total, calls):
    shares = []
    assert list(watched(range(total), total, shares.append, 0.5, 1.0)) == list(range(total))
    assert len(shares) == calls and shares[-1] == 1.0
    assert shares == sorted(shares) and shares[0] > 0.5
