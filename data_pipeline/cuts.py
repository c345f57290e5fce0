"""Lengths of the cuts of files from which crops are made. This module does not import TensorFlow.

A crop that changes neither speed nor spectrum is a cut of its own length. Otherwise the cut has
margins, and `resampling` plays it faster or slower. Speeds are ratios of lengths whose FFT is fast.
"""

import dataclasses

import numpy as np

from sccunet.config import Config

# An FFT joins both ends of a cut, and the jump would ring in the crop: so cuts fade in and out.
# With 256 samples the rest is -130 dB at 1 kHz, and nowhere above -70 dB.
_MARGIN = 256
_PRIMES = (2, 3, 5, 7, 11)  # FFTs of lengths with other factors take 2 to 10 times as long


@dataclasses.dataclass(frozen=True, eq=False)
class Cuts:
    """Lengths in samples.

    Attributes:
      margin: part of a cut before the crop begins.
      played: length of every cut, once its speed is changed.
      lengths: the lengths that cuts can have before, int32, ascending. `length / played` is how
        fast a cut is played. For crops of 1 s or more, speeds are 0.3 % apart on average.
    """

    margin: int
    played: int
    lengths: np.ndarray

    @property
    def samples(self) -> int:
        """Number of samples that are read for every crop: the longest cut."""
        return int(self.lengths[-1])


def cuts_of(config: Config) -> Cuts:
    """Returns the lengths of a config's training crops."""
    patch, most = config.model.patch_samples, 1 + config.augment.speed
    if not config.augment.speed and not config.augment.tilt_db:
        return Cuts(0, patch, np.array([patch], np.int32))
    # At the lowest speed the margins are longest.
    least = int(np.ceil(patch + 2 * _MARGIN * most))
    played = int(_fast_lengths(least, 2 * least)[0])
    return Cuts(_MARGIN, played, _fast_lengths(int(np.ceil(played / most)), int(played * most)))


def _fast_lengths(first: int, last: int) -> np.ndarray:
    """Lists the numbers from first to last that have no prime factors but `_PRIMES`, int32."""
    lengths = np.arange(first, last + 1, dtype=np.int32)
    rest = lengths.copy()
    for prime in _PRIMES:
        while (divisible := rest % prime == 0).any():
            rest[divisible] //= prime
    return lengths[rest == 1]
