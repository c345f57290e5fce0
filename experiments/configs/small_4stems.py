"""A network for CPUs, to try things and to learn from a few songs."""

import ml_collections

from sccunet.config import AugmentConfig, Config, ModelConfig


def get_config() -> ml_collections.ConfigDict:
    """0.7 million parameters, many short epochs."""
    config = Config(
        model=ModelConfig(filters=(8, 16, 32, 64, 128)),
        augment=AugmentConfig(gain_db=4.0, channel_swap=True, mix_tracks=0.5),
        batch_size=4,
        epochs=20,
        steps_per_epoch=60,
        validation_crops=40,
        downmix=False,
        decay="cosine",
    )
    return ml_collections.ConfigDict(config.to_dict())
