"""Metrics with one value for each stem of a track, beside museval's values for each second."""

import dataclasses
from collections.abc import Callable

import numpy as np

# SI-SDR ends at 150 dB on either side: without a limit, an exact estimate would have infinity.
_SMALLEST = 1e-15


def whole_track_sdr(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Computes the SDR of the Music Demixing Challenge 2021 (Mitsufuji et al., arXiv:2108.13559).

    10 log10((sum r^2 + 1e-7) / (sum (r - e)^2 + 1e-7)), the sums over all samples and channels.

    Args:
      references: [stems, samples, channels].
      estimates: [stems, samples, channels].

    Returns:
      float [stems], dB.
    """
    signal = np.sum(np.square(references), axis=(1, 2), dtype=np.float64)
    error = np.sum(np.square(references - estimates), axis=(1, 2), dtype=np.float64)
    return 10 * np.log10((signal + 1e-7) / (error + 1e-7))


def si_sdr(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Computes the scale-invariant SDR (Le Roux et al. 2019, arXiv:1811.02508, equation 3).

    10 log10(sum (a r)^2 / sum (a r - e)^2) with a = sum r e / sum r^2, the sums over all samples
    and channels: one factor for all channels, so that a wrong balance of the channels is an error.
    Means are not removed. A negative factor counts like a positive one.

    Args:
      references: [stems, samples, channels].
      estimates: [stems, samples, channels].

    Returns:
      float [stems], dB, from -150 to 150. NaN if all of a reference or an estimate is zero.
    """
    scores = np.full(len(references), np.nan)
    for i, (reference, estimate) in enumerate(zip(references, estimates, strict=True)):
        reference, estimate = reference.ravel().astype(float), estimate.ravel().astype(float)
        if not (reference.any() and estimate.any()):
            continue
        target = (reference @ estimate) / (reference @ reference) * reference
        error = target - estimate
        least = _SMALLEST * (estimate @ estimate)
        scores[i] = 10 * np.log10(max(target @ target, least) / max(error @ error, least))
    return scores


@dataclasses.dataclass(frozen=True)
class TrackMetric:
    """A metric with one value for each stem of a track.

    Attributes:
      folder: folder of its JSON files, next to museval's; also its key in summaries.
      title: heading in reports; {parts} stands for "whole tracks" or "the excerpts".
      short: name in column headings, after the stem.
      what: exact definition, aggregation over tracks, and unit; {parts} as in `title`.
      compute: (references, estimates), both [stems, samples, channels] -> float [stems]; NaN where
        there is no score.
    """

    folder: str
    title: str
    short: str
    what: str
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def of(self, excerpt_seconds: float | None) -> "TrackMetric":
        """Returns the metric with the texts for scores of excerpts, or of whole tracks."""
        parts = "the excerpts" if excerpt_seconds else "whole tracks"
        title, what = (text.format(parts=parts) for text in (self.title, self.what))
        return dataclasses.replace(self, title=title, what=what)


# In the order of reports; a picture of an ablation shows the first.
TRACK_METRICS = (
    TrackMetric(
        "whole_track_sdr",
        "SDR over {parts}",
        "SDR",
        "SDR of the Music Demixing Challenge over {parts}; median over tracks, dB",
        whole_track_sdr,
    ),
    TrackMetric(
        "si_sdr",
        "SI-SDR over {parts}",
        "SI-SDR",
        "SI-SDR (Le Roux et al. 2019) over {parts}, one factor for all channels of a stem, means"
        " not removed, no score for silent references or estimates; median over tracks, dB",
        si_sdr,
    ),
)
