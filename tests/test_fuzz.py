"""Damaged files of all kinds beside whole ones: a few seconds of `fuzz_audio.py`."""

import fuzz_audio
import numpy as np
import pytest


@pytest.mark.slow
def test_damaged_files_of_every_container(tmp_path):
    rng = np.random.default_rng(1)
    wholes = fuzz_audio.whole_files(rng, most=32)
    assert len(wholes) == 32
    songs = tmp_path / "songs"
    songs.mkdir()
    files = fuzz_audio.write_round(songs, wholes, 48, rng)
    assert sum(file.whole for file in files) == 6
    run = fuzz_audio.make_run(tmp_path / "run")
    assert fuzz_audio.check_round(run, files, tmp_path / "out") == {}
