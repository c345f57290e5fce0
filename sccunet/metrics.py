"""Metrics of the validation."""

import math
from collections.abc import Sequence

import keras
from keras import ops

_LEAST = 1e-20  # error that keeps the logarithm finite


class SDR(keras.metrics.Metric):
    """Signal-to-distortion ratio of each stem in dB, 10 log10(sum |s|^2 / sum |s - estimate|^2).

    The sums run over all samples, channels and batches since the last reset, on all replicas. A
    stem that is silent in all of them has no SDR: it is NaN, and not part of the mean.

    Args:
      stems: names of the stems.

    Attributes:
      names: `<stem>_sdr` for each stem, and `sdr`, their mean.
    """

    def __init__(self, stems: Sequence[str]):
        super().__init__(name="sdr", dtype="float32")
        self.names = (*(f"{stem}_sdr" for stem in stems), "sdr")
        self._signal, self._error = (
            self.add_variable((len(stems),), "zeros", name=name) for name in ("signal", "error")
        )

    def update_state(self, truth, estimates):
        """Adds the energies of waveforms [batch, stems, channels, samples]."""
        for total, waveforms in ((self._signal, truth), (self._error, truth - estimates)):
            total.assign_add(ops.sum(ops.square(waveforms), axis=(0, 2, 3)))

    def result(self):
        """Returns a scalar for each of `names`."""
        sounds = self._signal > 0
        ratio = ops.maximum(self._signal, _LEAST) / ops.maximum(self._error, _LEAST)
        ratios = ops.where(sounds, 10 * ops.log10(ratio), 0.0)
        mean = ops.sum(ratios) / ops.sum(ops.cast(sounds, "float32"))
        ratios = ops.where(sounds, ratios, math.nan)
        return dict(zip(self.names, [*ops.unstack(ratios), mean], strict=True))
