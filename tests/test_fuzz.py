"""Damaged files of all kinds beside whole ones: a few seconds of `fuzz_audio.py`."""

import fuzz_audio
import numpy as np
import pytest


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fuzz_audio.make_run(tmp_path_factory.mktemp("fuzz") / "run")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_files_of_every_container(tmp_path, run, seed):
    rng = np.random.default_rng(seed)
    wholes = fuzz_audio.whole_files(rng, most=24)
    assert len(wholes) == 24
    songs = tmp_path / "songs"
    songs.mkdir()
    files = fuzz_audio.write_round(songs, wholes, 32, rng)
    assert sum(file.whole for file in files) == 4
    assert fuzz_audio.check_round(run, files, tmp_path / "out") == {}
