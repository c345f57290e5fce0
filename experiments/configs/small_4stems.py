"""A small network for CPUs, for trials and for training on a few songs. Not the paper's.

    sccunet train --config=small_4stems --data_dir=DATA --workdir=RUN

Hardware, wall time and score on MUSDB18: not run.
"""

import ml_collections

from sccunet.config import AugmentConfig, Config, ModelConfig


def get_config() -> ml_collections.ConfigDict:
    """0.7 million parameters, masks for left and right together, many short epochs."""
    config = Config(
        model=ModelConfig(
            patch_samples=48_640,  # 96 frames: a multiple of 16, so no frame is padding
            filters=(8, 16, 32, 64, 128),
            dropout=0.1,
            channels=2,
            input_power=0.5,
            output="mask",
        ),
        augment=AugmentConfig(gain_db=5.0, channel_swap=True, mix_tracks=0.9),
        batch_size=4,
        epochs=20,
        steps_per_epoch=120,
        validation_crops=40,
        downmix=False,
        learning_rate=5e-3,
        decay="cosine",
        loss="complex",
    )
    return ml_collections.ConfigDict(config.to_dict())
