"""Separates a real song with a model that ships with sccunet, and scores it.

Without FILE, the song is 25 seconds of "Sodium" by Software-Entwicklungskit, which is in the public
domain (CC0 1.0). Its true vocals and accompaniment come with it, as Ogg files: coding changes the
scores by less than 0.1 dB. A FILE has no true stems here, so that nothing is scored.

The score is the SDR over the whole song, 10 log10(sum s^2 / sum (s - estimate)^2), beside that of
the mixture in place of the estimate: what counts is the difference.

Examples:
  sccunet demo
  sccunet demo song.mp3
  sccunet demo --model=RUN --demo_dir=OUT song.mp3
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from data_pipeline import audio
from experiments import cli, model_flag, recordings
from experiments.track_metrics import whole_track_sdr
from sccunet import runs
from sccunet.config import ConfigError


def demo(
    song: Path, folder: Path, model: str | None = None, truths: Mapping[str, Path] | None = None
) -> None:
    """Separates a song as a user would; prints where its stems are, how loud, and by which model.

    Args:
      song: a recording.
      folder: parent of the stems' folder, in which existing stems are replaced.
      model: what `separate` takes; None for the default model.
      truths: stem -> file of the true one; stems without one are not scored.

    Raises:
      ConfigError: if there is no such file, or no model.
      SystemExit: if it cannot be separated.
    """
    if not song.is_file():
        raise ConfigError(f"{song}: found no such file, expected a recording")
    path = runs.model_path(model)
    stems = runs.load_config(path).model.stems
    arguments = [f"--model={model}"] if model else []
    arguments += [f"--output_dir={folder}", "--overwrite", str(song)]
    began = time.monotonic()
    code = cli.run_program("separate", *arguments)
    if code:
        sys.exit(abs(code))
    seconds = time.monotonic() - began
    print(f"\n{song.name}: separated in {seconds:.1f} s. Levels against the mixture:")
    files = {stem: folder / song.stem / f"{stem}.wav" for stem in stems}
    print(report(power(song), {file: power(file) for file in files.values()}))
    if truths:
        print(*scores(song, truths, files), sep="\n")
    card = path / runs.CARD
    print(f"model: {card if card.is_file() else path}")


def power(path: Path) -> float:
    """Returns the mean square of all samples of all channels of a file."""
    total, samples = 0.0, 0
    with audio.recording(path) as (_, blocks):
        for block in blocks:
            total += float(np.square(block, dtype=np.float64).sum())
            samples += block.size
    return total / max(samples, 1)


def report(mixture: float, stems: Mapping[Path, float]) -> str:
    """Returns a line for each file: its power over the mixture's, and its path."""
    levels = [
        f"{10 * np.log10(stem / mixture):.1f} dB" if stem and mixture else "silent"
        for stem in stems.values()
    ]
    return "\n".join(f"{level:>9}  {file}" for level, file in zip(levels, stems, strict=True))


def scores(song: Path, truths: Mapping[str, Path], estimates: Mapping[str, Path]) -> list[str]:
    """Returns a line for each stem with a true one: the SDR of its estimate and of the song."""
    mixture, _ = audio.read(song)
    lines = []
    for stem in (stem for stem in estimates if stem in truths):
        truth, estimate = (audio.read(files[stem])[0] for files in (truths, estimates))
        sdr = whole_track_sdr(np.stack([truth, truth]), np.stack([estimate, mixture]))
        lines.append(f"{stem}: SDR {sdr[0]:.1f} dB (the mixture in its place: {sdr[1]:.1f} dB)")
    return lines


def main(files: Sequence[str]) -> None:
    """Separates the file that is given, or the song that comes with sccunet."""
    if len(files) > 1:
        raise ConfigError(f"FILE: found {len(files)}, expected one recording")
    song, truths = (files[0], None) if files else (recordings.SODIUM, recordings.SODIUM_STEMS)
    demo(Path(song), Path(_DEMO_DIR.value), flags.FLAGS.model, truths)


if __name__ == "__main__":
    _DEMO_DIR = flags.DEFINE_string(
        "demo_dir", "demo", "Folder for the stems; existing ones are replaced."
    )
    model_flag.define()
    cli.run(main, takes_files=True)
