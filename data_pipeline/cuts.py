"""Lengths of the cuts of files from which crops are made. This module does not import TensorFlow.

A crop whose speed stays as it is needs its own length. Others are played in blocks: `BLOCK` samples
of a crop are made of `step` samples of a cut, so that the speed is step / BLOCK. Each sample is a
sum of `TAPS` samples of the cut, so that the cut has margins.
"""

import dataclasses
import math

from sccunet.config import Config

BLOCK = 128
TAPS = 64
MARGIN = TAPS // 2 - 1


@dataclasses.dataclass(frozen=True)
class Cuts:
    """Lengths in samples.

    Attributes:
      samples: number of samples that are read for every crop.
      margin: number of those before the crop begins.
      steps: the possible steps: those with speeds within the config's, `BLOCK` among them.
    """

    samples: int
    margin: int
    steps: range


def cuts_of(config: Config) -> Cuts:
    """Returns the lengths for a config's training crops."""
    patch, most = config.model.patch_samples, 1 + config.augment.speed
    if most == 1:
        return Cuts(patch, 0, range(BLOCK, BLOCK + 1))
    steps = range(math.ceil(BLOCK / most), math.floor(BLOCK * most) + 1)
    blocks = math.ceil(patch / BLOCK)
    return Cuts((blocks + 1) * steps[-1], MARGIN, steps)
