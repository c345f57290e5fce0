"""Spectrograms as pictures: levels on a logarithmic frequency axis, in colours. Only NumPy."""

import numpy as np

LOWEST_HZ = 20.0
LOWEST_DB, HIGHEST_DB = -80, -10  # of full scale, as colours

# From silence to the loudest: every 32nd of the 256 colours of Matplotlib's map "magma".
_COLOURS = np.array(
    [
        (0, 0, 4),
        (29, 17, 71),
        (81, 18, 124),
        (131, 38, 129),
        (183, 55, 121),
        (231, 82, 99),
        (252, 137, 97),
        (254, 196, 136),
        (252, 253, 191),
    ]
)


def log_frequency_bands(sample_rate: int, frame_length: int, rows: int) -> np.ndarray:
    """Returns the weights that turn the bins of power spectra into bands of equal width in octaves.

    A band that is wider than a bin has the sum of its bins' powers, so that a tone has the same
    level at every frequency; a narrower one is interpolated.

    Args:
      sample_rate: in Hz.
      frame_length: of the Fourier transform, in samples.
      rows: number of bands.

    Returns:
      float32 [rows, bins], the lowest band first, from 20 Hz to half of the sample rate.
    """
    bins = frame_length // 2 + 1
    edges = np.geomspace(LOWEST_HZ * frame_length / sample_rate, bins - 1, rows + 1)  # in bins
    # The integral of a triangle of width 2 around each bin, up to each edge.
    place = np.clip(edges[:, None] - np.arange(bins), -1, 1)
    below = np.where(place < 0, (1 + place) ** 2 / 2, 1 - (1 - place) ** 2 / 2)
    return (np.diff(below, axis=0) / np.minimum(np.diff(edges), 1)[:, None]).astype(np.float32)


def row_of(hertz: float, sample_rate: int, rows: int) -> int:
    """Returns the band of `log_frequency_bands` with this frequency; `rows` or more if none."""
    octaves = np.log2([hertz / LOWEST_HZ, sample_rate / 2 / LOWEST_HZ])
    return int(rows * octaves[0] / octaves[1])


def coloured(levels: np.ndarray) -> np.ndarray:
    """Returns levels in dB of full scale as colours, uint8 [..., 3]: black is `LOWEST_DB`."""
    place = (levels - LOWEST_DB) / (HIGHEST_DB - LOWEST_DB)
    place = np.clip(place, 0, 1) * (len(_COLOURS) - 1)
    steps = np.arange(len(_COLOURS))
    channels = [np.interp(place, steps, channel) for channel in _COLOURS.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
