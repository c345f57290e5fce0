"""The paper's singing voice separation: vocals, accompaniment (all other stems).

    sccunet train --config=paper_2stems --data_dir=DATA --workdir=RUN

Hardware, wall time and score on MUSDB18: not run.
"""

import ml_collections

from experiments.configs import paper_4stems


def get_config() -> ml_collections.ConfigDict:
    """Differs from `paper_4stems` only in the stems, and thus in the network's last layer."""
    config = paper_4stems.get_config()
    config.model.stems = ("vocals", "accompaniment")
    config.sources = ml_collections.ConfigDict({"accompaniment": ("drums", "bass", "other")})
    return config
