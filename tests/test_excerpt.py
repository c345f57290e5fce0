"""The excerpt that TensorBoard shows."""

import dataclasses

import numpy as np

from data_pipeline.audio_writer import write_wav
from data_pipeline.tracks import Segment, find_tracks
from experiments.training import excerpt
from sccunet.config import Config, ModelConfig

RATE = 8000
_MODEL = ModelConfig(stems=("vocals", "bass"), sample_rate=RATE, patch_samples=2 * RATE)


def _segments(folder, seconds):
    """Noise; the bass sounds only from 12 to 18 s."""
    rng = np.random.default_rng(0)
    for name, length in seconds.items():
        bass, vocals = 0.1 * rng.standard_normal((2, length * RATE, 1))
        bass[: 12 * RATE] = bass[18 * RATE :] = 0
        write_wav(folder / "valid" / name / "bass.wav", bass, RATE, "float32")
        write_wav(folder / "valid" / name / "vocals.wav", vocals, RATE, "float32")
    tracks = find_tracks(folder, Config(model=_MODEL), "valid")
    return [Segment(track, 0, track.frames) for track in tracks]


def test_six_seconds_in_which_every_stem_sounds(tmp_path):
    segments = _segments(tmp_path, {"a": 7, "b": 40})
    found = excerpt.liveliest(segments, Config(model=_MODEL))
    assert found.shape == (2, 6 * RATE, 1)
    assert (found.std(axis=1) > 0.09).all()
    model = dataclasses.replace(_MODEL, channels=2)
    config = Config(model=model, downmix=False)
    stereo = excerpt.liveliest(segments, config)
    np.testing.assert_array_equal(stereo, found.repeat(2, axis=2))


def test_as_much_as_there_is(tmp_path):
    found = excerpt.liveliest(_segments(tmp_path, {"a": 5}), Config(model=_MODEL))
    assert found.shape == (2, 4 * RATE, 1)  # whole patches
