r"""Draws the spectrograms of true and estimated stems side by side, as a PNG.

Example:
  sccunet plot --truth_dir=DATA/test/TRACK --estimates_dir=OUT/TRACK \
      --output=TRACK.png
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from data_pipeline import wav
from experiments import cli
from experiments.reports import spectrograms


def read_stems(
    truth_dir: str | Path, estimates_dir: str | Path, seconds: float = 20.0
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
    """Reads the middle of the mixture and of each estimated stem.

    Args:
      truth_dir: a track's folder of WAV files. A stem without a file there is the sum of all files
        that are neither the mixture nor another stem.
      estimates_dir: a folder with a WAV file per stem.
      seconds: length of the part, from the middle of the track.

    Returns:
      "mixture" and each stem -> truth and estimate, the mean of the channels [samples]; and the
      sample rate in Hz. The mixtures are the sums of the stems.

    Raises:
      AudioError: if a file is missing or cannot be read.
    """
    truth_dir, estimates_dir = Path(truth_dir), Path(estimates_dir)
    stems = sorted(path.stem for path in estimates_dir.glob("*.wav"))
    if not stems:
        raise wav.AudioError(f"{estimates_dir}: found no .wav files, expected one per stem")
    first = wav.wav_info(estimates_dir / f"{stems[0]}.wav")
    rate = first.sample_rate
    length = min(first.frames, int(seconds * rate))
    start = (first.frames - length) // 2

    def read(path):
        info = wav.wav_info(path)
        if (info.sample_rate, info.frames) != (rate, first.frames):
            raise wav.AudioError(
                f"{path}: found {info.frames} samples at {info.sample_rate} Hz, expected"
                f" {first.frames} at {rate} Hz as in {first.path}"
            )
        return wav.read_wav(info, start, length).mean(axis=1)

    files = {path.stem for path in truth_dir.glob("*.wav")} - {"mixture"}
    left_over = sorted(files - set(stems))
    pairs = {}
    for stem in stems:
        sources = [stem] if stem in files else left_over
        if not sources:
            raise wav.AudioError(f"{truth_dir}: found no {stem}.wav, expected the true stems")
        truth = sum(read(truth_dir / f"{name}.wav") for name in sources)
        pairs[stem] = truth, read(estimates_dir / f"{stem}.wav")
    truths, estimates = zip(*pairs.values(), strict=True)
    return {"mixture": (sum(truths), sum(estimates)), **pairs}, rate


def main(_: Sequence[str]) -> None:
    """Draws one track."""
    pairs, rate = read_stems(_TRUTH_DIR.value, _ESTIMATES_DIR.value)
    spectrograms.of_pairs(pairs, rate, _OUTPUT.value)
    print(_OUTPUT.value)


if __name__ == "__main__":
    _TRUTH_DIR = flags.DEFINE_string("truth_dir", None, "Folder of a track's stems.", required=True)
    _ESTIMATES_DIR = flags.DEFINE_string(
        "estimates_dir", None, "Folder of the track's estimates.", required=True
    )
    _OUTPUT = flags.DEFINE_string("output", None, "The PNG to write.", required=True)
    cli.run(main)
