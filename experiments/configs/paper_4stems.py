"""The paper's multi-instrument separation: vocals, drums, bass, other.

    python -m experiments.train --config=experiments/configs/paper_4stems.py \
        --data_dir=DATA --workdir=RUN

Hardware, wall time and score on MUSDB18: not run.
"""

import ml_collections

from sccunet.config import Config


def get_config() -> ml_collections.ConfigDict:
    """The defaults are the paper's numbers."""
    return ml_collections.ConfigDict(Config().to_dict())
