"""`small_4stems` with two stems: vocals, accompaniment (all other stems).

    sccunet train --config=small_2stems --data_dir=DATA --workdir=RUN

Hardware, wall time and score on MUSDB18: not run.
"""

import ml_collections

from experiments.configs import paper_2stems, small_4stems


def get_config() -> ml_collections.ConfigDict:
    """Differs from `small_4stems` only in the stems."""
    config, stems = small_4stems.get_config(), paper_2stems.get_config()
    config.model.stems = stems.model.stems
    config.sources = stems.sources
    return config
