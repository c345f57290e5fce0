"""`medium_4stems` with two stems: vocals, accompaniment (all other stems).

    sccunet train --config=medium_2stems --data_dir=DATA --workdir=RUN

Hardware, wall time and score on MUSDB18: not run.
"""

import ml_collections

from experiments.configs import medium_4stems, paper_2stems


def get_config() -> ml_collections.ConfigDict:
    """Differs from `medium_4stems` only in the stems."""
    config, stems = medium_4stems.get_config(), paper_2stems.get_config()
    config.model.stems = stems.model.stems
    config.sources = stems.sources
    return config
