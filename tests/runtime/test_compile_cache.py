"""What is compiled is kept in the user's cache folder, never beside the program that pip installed."""

import errno
from pathlib import Path

import pytest

import jaxsnn
from jaxsnn.runtime import compile_cache

numba = pytest.importorskip("numba", reason="Numba is not installed")


def loop():
    return 3


def kept(monkeypatch, home):
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return compile_cache.keep_loop(numba.njit(loop))


def test_numba_keeps_its_code_in_the_users_cache_folder(monkeypatch, tmp_path):
    """In the package, pip leaves a folder jaxsnn behind that hides a later install."""
    before = numba.config.CACHE_DIR
    place = Path(kept(monkeypatch, tmp_path).stats.cache_path)
    assert place.is_relative_to(tmp_path / ".cache" / "jaxsnn" / "numba")
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert before == numba.config.CACHE_DIR


def test_a_full_disk_in_the_cache_folder_ends_no_run(monkeypatch, tmp_path):
    """The first run ended in a sentence that blamed its own folder."""
    one = kept(monkeypatch, tmp_path)
    tried = []

    def full(*arguments):
        tried.append(arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(one._cache._cache_file, "save", full)
    assert one() == loop()
    assert len(tried) == 1


def test_the_loops_of_the_simulator_are_not_kept_in_the_package():
    from jaxsnn.simulation.events import kernels, patterns

    loops = [
        patterns.spiking_patterns,
        kernels.constant_layer,
        kernels.spiking_layer,
        kernels.readout,
        kernels.count_spikes,
        kernels.list_spikes,
    ]
    for one in loops:
        place = one.stats.cache_path
        assert place is None or not Path(place).is_relative_to(Path(jaxsnn.__file__).parent)


def test_without_a_usable_home_nothing_is_kept_and_all_works(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert kept(monkeypatch, blocked).stats.cache_path is None
    assert compile_cache.cache_folder("numba") is None
    (tmp_path / ".cache/jaxsnn/numba").mkdir(parents=True)
    monkeypatch.setattr(compile_cache.os, "access", lambda *arguments: False)  # a disk to read only
    assert kept(monkeypatch, tmp_path).stats.cache_path is None


def test_the_user_may_keep_caches_elsewhere(monkeypatch, tmp_path):
    """By XDG's variable, which counts if it is absolute."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for named, place in ((tmp_path / "caches", "caches"), ("relative", "home/.cache"), ("", "home/.cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(named))
        assert compile_cache.cache_folder("numba") == tmp_path / place / "jaxsnn" / "numba"


def test_a_folder_that_the_user_names_comes_first(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "named"))
    assert Path(kept(monkeypatch, tmp_path).stats.cache_path).is_relative_to(tmp_path / "named")
