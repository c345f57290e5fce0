"""The paper's multi-instrument separation: vocals, drums, bass, other.

    sccunet train --config=paper_4stems --data_dir=DATA --workdir=RUN

Hardware, wall time and score on MUSDB18: not run.

Source of each value: [paper] the paper's own words; [agree] two or more independent readers of the
paper agree; [one] one reader; [open] not stated, so chosen by this project (docs/fidelity.md).
"""

import ml_collections

from sccunet.config import AugmentConfig, Config, ModelConfig


def get_config() -> ml_collections.ConfigDict:
    """Returns the paper's values, which are also the defaults."""
    config = Config(
        # Data and features: section 2.1 [paper], the rest of it [agree].
        model=ModelConfig(
            stems=("vocals", "drums", "bass", "other"),  # k = 4 sources [paper]
            sample_rate=44_100,  # Hz, no down-sampling [paper]
            frame_length=2048,  # window [paper]; Hann, FFT of the same length [open]
            hop_length=512,  # [paper]
            patch_samples=88_200,  # 2 s [paper]: 1025 bins x 173 frames [agree]
            # Network [agree]: four encoder levels, the bottom; dropout in the decoder.
            filters=(32, 64, 128, 256, 512),
            dropout=0.4,
            channels=1,  # mono [agree]
            input_power=1.0,  # the magnitudes themselves [agree]
            output="magnitude",  # of each source, with no mask [paper]
        ),
        downmix=True,  # one channel [agree]; that it is the mean of the file's [open]
        random_crops=True,  # "consecutive or at random places" [open]
        augment=AugmentConfig(gain_db=0.0, channel_swap=False, mix_tracks=0.0),  # none [open]
        # Loss [agree]: weights from the volumes of the training split. On MUSDB18 the paper has
        # 0.297, 0.262, 0.232, 0.209 in the order of the stems above.
        loss="magnitude",  # L1 [agree]
        loss_weights=(),
        loss_balance="volume",
        # Training [agree]: Adam, 1e-3 for 20 epochs, then 1e-4 for 20.
        learning_rate=1e-3,
        decay="step",
        epochs=40,
        weight_decay=1e-6,  # [agree]; decoupled rather than L2 [open]
        batch_size=8,  # [agree]; not seen in the paper itself
        steps_per_epoch=0,  # an epoch is one pass over all patches [open]
    )
    return ml_collections.ConfigDict(config.to_dict())
