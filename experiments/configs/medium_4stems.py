"""`small_4stems` with four times the parameters, for a GPU or a night on a CPU. Not the paper's.

    sccunet train --config=medium_4stems --data_dir=DATA --workdir=RUN

Hardware, wall time and score on MUSDB18: not run.
"""

import ml_collections

from experiments.configs import small_4stems


def get_config() -> ml_collections.ConfigDict:
    """2.9 million parameters, larger batches and more steps."""
    config = small_4stems.get_config()
    config.model.filters = (16, 32, 64, 128, 256)
    config.batch_size = 8
    config.epochs = 60
    config.steps_per_epoch = 500
    config.validation_crops = 200
    config.learning_rate = 3e-3
    config.warmup_steps = 500
    config.ema_momentum = 0.999
    return config
