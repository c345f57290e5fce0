r"""Draws the spectrograms of true and estimated stems beside each other, as a PNG.

Example:
  python -m experiments.plot --truth_dir=DATA/test/TRACK --estimates_dir=OUT/TRACK \
      --output=TRACK.png
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from experiments.reports.spectrograms import spectrogram


def spectrograms(
    truth_dir: str | Path, estimates_dir: str | Path, output: str | Path, seconds: float = 20.0
) -> None:
    """One row for the mixture, one for each estimated stem: the truth left, the estimate right.

    Args:
      truth_dir: a track's folder of WAV files; a stem without a file there is the sum of all files
        that are neither the mixture nor another stem.
      estimates_dir: a folder with a WAV file per stem.
      output: the PNG.
      seconds: how much is drawn, from the middle of the track.

    Raises:
      AudioError: if a file is missing or cannot be read.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from data_pipeline.wav import AudioError, read_wav, wav_info

    truth_dir, estimates_dir = Path(truth_dir), Path(estimates_dir)
    stems = sorted(path.stem for path in estimates_dir.glob("*.wav"))
    if not stems:
        raise AudioError(f"{estimates_dir}: found no .wav files, expected one per stem")
    first = wav_info(estimates_dir / f"{stems[0]}.wav")
    rate = first.sample_rate
    length = min(first.frames, int(seconds * rate))
    start = (first.frames - length) // 2

    def read(path):
        info = wav_info(path)
        if (info.sample_rate, info.frames) != (rate, first.frames):
            raise AudioError(
                f"{path}: found {info.frames} samples at {info.sample_rate} Hz, expected"
                f" {first.frames} at {rate} Hz as in {first.path}"
            )
        return read_wav(info, start, length).mean(axis=1)

    files = {path.stem for path in truth_dir.glob("*.wav")} - {"mixture"}
    left_over = sorted(files - set(stems))
    for stem in stems:
        if stem not in files and not left_over:
            raise AudioError(f"{truth_dir}: found no {stem}.wav, expected the true stems")
    truth = {
        stem: sum(
            read(truth_dir / f"{name}.wav") for name in ([stem] if stem in files else left_over)
        )
        for stem in stems
    }
    rows = {"mixture": (sum(truth.values()), sum(read(estimates_dir / f"{s}.wav") for s in stems))}
    rows |= {stem: (truth[stem], read(estimates_dir / f"{stem}.wav")) for stem in stems}

    figure, axes = pyplot.subplots(
        len(rows), 2, figsize=(12, 2.2 * len(rows)), sharex=True, sharey=True, layout="constrained"
    )
    for (name, pair), row in zip(rows.items(), axes, strict=True):
        for axis, what, samples in zip(row, ("truth", "estimate"), pair, strict=True):
            image = spectrogram(axis, samples, rate)
            axis.set_title(
                "sum of the estimates"
                if (name, what) == ("mixture", "estimate")
                else f"{name}, {what}"
            )
    for axis in axes[:, 0]:
        axis.set_ylabel("Hz")
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    figure.colorbar(image, ax=axes, label="dB", shrink=0.4)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=80)
    pyplot.close(figure)


def main(_: Sequence[str]) -> None:
    """Draws one track."""
    spectrograms(_TRUTH_DIR.value, _ESTIMATES_DIR.value, _OUTPUT.value)
    print(_OUTPUT.value)


if __name__ == "__main__":
    _TRUTH_DIR = flags.DEFINE_string("truth_dir", None, "A track's stems.", required=True)
    _ESTIMATES_DIR = flags.DEFINE_string("estimates_dir", None, "Its estimates.", required=True)
    _OUTPUT = flags.DEFINE_string("output", None, "The PNG to write.", required=True)
    cli.run(main)
