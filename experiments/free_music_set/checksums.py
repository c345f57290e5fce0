"""Compares the files of a built set with the checksums of an earlier build.

The checksums are those of files, so `sha256sum` gives them too. Decoders, NumPy and the vocoder
round differently on other processors and in other versions. So a file with another checksum is
accepted if its length and its level are close to the recorded ones: its inputs were exact.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from data_pipeline.wav import read_wav

CHECKSUMS = Path(__file__).with_name("checksums.json")

_LENGTHS = 0.01  # share by which lengths may differ: sung syllables can fall out differently
_LEVELS = 1.0  # dB

Record = Mapping[str, float | int | str]


def record_of(file: Path, known: Iterable[Record]) -> Record:
    """Returns SHA-256, samples and level (dBFS, RMS) of a WAV, measured unless it is known."""
    with file.open("rb") as content:
        checksum = hashlib.file_digest(content, "sha256").hexdigest()
    for record in known:
        if record["sha256"] == checksum:
            return record
    samples = read_wav(file)
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    level = round(10 * np.log10(max(power, 1e-12)), 2)
    return {"sha256": checksum, "samples": len(samples), "dbfs": level}


def is_close(found: Record, recorded: Record) -> bool:
    """Whether a file is what was recorded, but for rounding."""
    lengths = abs(found["samples"] / recorded["samples"] - 1)
    return lengths <= _LENGTHS and abs(found["dbfs"] - recorded["dbfs"]) <= _LEVELS
