"""Functions that the tests of audio files share."""

import numpy as np

from data_pipeline import audio
from data_pipeline.errors import DamagedError


def integers(bits: int, samples: int = 9_000, channels: int = 2) -> np.ndarray:
    """Returns whole numbers over the full range of a number of bits, both ends included."""
    full = 2 ** (bits - 1)
    x = np.random.default_rng(bits).integers(-full, full, (samples, channels))
    x[0], x[-1] = -full, full - 1
    return x


def salvage(path, stream: int = 0) -> tuple[audio.AudioInfo, np.ndarray, str]:
    """Returns the salvaged samples of a file, and the final message ("" if it is intact)."""
    blocks, message = [], ""
    with audio.recording(path, stream, salvage=True) as (info, given):
        try:
            blocks.extend(given)
        except DamagedError as error:
            message = str(error)
    assert "\n" not in message
    return info, np.concatenate(blocks), message
