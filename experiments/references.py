"""Preparation and check of true stems, so that museval's SIR, ISR and SAR can be trusted."""

import numpy as np

# museval fits filters that turn the references into the estimate. Where a reference has almost no
# energy, the filters grow without bound and lower SIR, ISR and SAR. Measured on the ideal ratio
# mask of a rendered song, with noise added to the references: with the emptiest 2 kHz 88 dB below
# the stem, the worst stem's SIR was 2 dB too low; at 92 dB 3, at 100 dB 7, at 104 dB 11, at 130 dB
# 60. The other stems' SIR was too low as well. SDR was always correct.
_BAND_HZ = 2000
_EMPTY_DB = -88.0


def as_16_bit(references: np.ndarray) -> np.ndarray:
    """Rounds references to 16 bits, the resolution of MUSDB18-HQ, but keeps them as floats.

    A reference decoded from lossy audio to float has an empty uppermost band, where museval's SIR,
    ISR and SAR are meaningless. The rounding adds noise there. SDR does not change.
    """
    return np.round(references * 32768) / 32768


def empty_band(reference: np.ndarray, sample_rate: int) -> dict[str, float] | None:
    """Returns the emptiest band of a reference, if it is so empty that only SDR can be trusted.

    Args:
      reference: [samples, channels], rounded as it is scored.
      sample_rate: in Hz.

    Returns:
      None, or {"from_hz", "to_hz", "db"}: the band, and its power relative to the stem's in dB.
    """
    from scipy import signal

    frame = min(2048, len(reference))
    hertz, power = signal.welch(reference, sample_rate, nperseg=frame, axis=0, detrend=False)
    power = power.mean(axis=1, dtype=np.float64)  # [bins]
    total = power.sum()
    if total == 0:  # museval does not score a silent stem
        return None
    bins = min(len(power), max(1, round(_BAND_HZ * frame / sample_rate)))
    bands = np.convolve(power, np.ones(bins), "valid")
    first = int(bands.argmin())
    # A floor for bands that are exactly zero, far below the noise of 16 bits.
    db = 10 * np.log10(max(bands[first] / total, 1e-20))
    if db >= _EMPTY_DB:
        return None
    last = first + bins - 1
    return {"from_hz": float(hertz[first]), "to_hz": float(hertz[last]), "db": float(db)}
