"""A small network for vocals and accompaniment of music in general, from the free training set.

    sccunet free_music --data_dir=FREE
    sccunet train --config=free_2stems --workdir=RUN \\
        --data_dir=FREE/songs,FREE/voices,FREE/sung,FREE/music

Hardware, wall time and score: docs/weights.md has those of 18 and 13 epochs.
"""

import ml_collections

from experiments.configs import small_2stems


def get_config() -> ml_collections.ConfigDict:
    """The network of `small_2stems`; stems of all sources are mixed, many steps."""
    config = small_2stems.get_config()
    config.sources = ml_collections.ConfigDict()  # the set has accompaniment.wav
    # Shares of songs, voices, sung speech and music among those that have a stem: nearly half of
    # the vocals are sung speech, and a quarter of the accompaniments are those of songs.
    config.data_weights = (0.2, 0.1, 0.25, 0.6)
    config.augment.mix_tracks = 1.0
    config.augment.silent_share = 0.05
    config.augment.speed = 0.12
    config.augment.equalizer_db = 4.0
    config.augment.balance_db = (-9.0, 8.0)
    config.augment.stem_dropout = (0.125, 0.03)
    config.augment.duet = 0.15
    config.epochs = 18
    config.steps_per_epoch = 500
    config.validation_crops = 400
    config.learning_rate = 4e-3
    config.decay = "late"
    config.ema_momentum = 0.999
    config.best_by = "sdr"
    return config
