"""Batches without TensorFlow: those of the tf.data graph."""

import dataclasses
import itertools

import numpy as np
import pytest

from data_pipeline import dataset, loader, places, tracks
from data_pipeline.audio_writer import write_wav
from data_pipeline.errors import AudioError
from data_pipeline.tracks import Segment
from sccunet.config import AugmentConfig, Config, ModelConfig

_CONFIG = Config(
    model=ModelConfig(
        stems=("vocals", "rest"), frame_length=256, hop_length=64, patch_samples=1024
    ),
    sources={"rest": ("drums", "bass")},
    batch_size=3,
    downmix=False,
    seed=4,
)
_AUGMENTED = AugmentConfig(
    gain_db=6.0, channel_swap=True, mix_tracks=0.5, stem_dropout=(0.2, 0.2), duet=0.5
)


@pytest.fixture
def segments(tmp_path):
    rng = np.random.default_rng(0)
    for track in "ab":
        for file in ("vocals", "drums", "bass"):
            write_wav(tmp_path / f"train/{track}/{file}.wav", rng.uniform(-1, 1, (4000, 2)), 44_100)
    found = tracks.find_tracks(tmp_path, _CONFIG, "train")
    return [Segment(track, 0, track.frames) for track in found]


@pytest.mark.parametrize(
    "changes",
    [
        {"downmix": True},
        {"augment": _AUGMENTED},
        {"augment": _AUGMENTED, "model": dataclasses.replace(_CONFIG.model, channels=2)},
        {"augment": dataclasses.replace(_AUGMENTED, speed=0.1, balance_db=(-9.0, 8.0))},
    ],
    ids=["plain", "augmented", "stereo", "changed waveforms"],
)
def test_crops_are_those_of_the_graph(segments, changes):
    config = dataclasses.replace(_CONFIG, **changes)
    found = list(itertools.islice(loader.training_batches(segments, config, 5), 4))
    expected = dataset.training_dataset(segments, config, 5).take(4).as_numpy_iterator()
    np.testing.assert_allclose(found, list(expected), rtol=0, atol=1e-6)
    again, origins = loader.training_batch(segments, config, 7)
    np.testing.assert_array_equal(again, found[2])
    assert len(origins) == 3
    crops = places.fixed_crops(segments, config)
    assert len(crops) == 6
    for one, other in zip(
        loader.FixedBatches(segments, config, crops, 4),
        dataset.fixed_dataset(segments, config, crops, 4),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_a_file_that_is_gone_is_named(segments):
    batches = loader.training_batches(segments, _CONFIG)
    next(batches)
    path = segments[0].track.files["bass"].path
    with open(path, "wb"):
        pass
    with pytest.raises(AudioError, match=f"^{path}: found 0 samples, expected 4000 as before"):
        for _ in batches:
            pass
