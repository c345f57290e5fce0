"""Separates recordings of any length into stems.

Examples:
  python -m experiments.separate --model=RUN --output_dir=OUT song.wav
  python -m experiments.separate --model=EXPORT --output_dir=OUT song.flac "other song.mp3"

Each file's stems are written to OUT/<file name without its ending>/<stem>.wav, as long as the
file, at its sample rate and with its channels.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from sccunet.config import ConfigError, load_config

_BAR = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"


def separate_file(
    separator, path: str | os.PathLike, folder: str | os.PathLike, encoding: str = "float32"
) -> None:
    """Decodes, separates and writes a file block by block.

    Args:
      separator: a `sccunet.Separator`.
      path: what FFmpeg's libraries read.
      folder: of the stems; it is there whole or not at all. If it was there before, its stems are
        replaced one by one.
      encoding: "float32", "pcm24" or "pcm16".

    Raises:
      AudioError: if the file cannot be decoded to its end, or a stem cannot be written.
    """
    from tqdm import tqdm

    from data_pipeline import audio

    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    info = audio.probe(path)
    rate, seconds = info.sample_rate, info.seconds
    bar = tqdm(
        total=seconds,
        desc=Path(path).name,
        unit="s",
        bar_format=_BAR if seconds else None,
    )
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(bar)
            frames = seconds and round(seconds * rate)
            writers = {
                stem: stack.enter_context(
                    audio.wav_writer(partial / f"{stem}.wav", rate, info.channels, encoding, frames)
                )
                for stem in separator.config.model.stems
            }
            for block in separator.stream(_finite(audio.decode(path), path), rate):
                for stem, samples in block.items():
                    writers[stem](samples)
                bar.update(len(samples) / rate)
        if folder.exists():  # with --overwrite: what else lies there is not ours
            for path in partial.iterdir():
                os.replace(path, folder / path.name)
        else:
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _finite(blocks: Iterable, path: str | os.PathLike) -> Iterator:
    """The blocks [samples, channels] as they come, if all of their samples are numbers."""
    import numpy as np

    from data_pipeline.audio import AudioError

    samples = 0
    for block in blocks:
        if not np.isfinite(block).all():
            raise AudioError(
                f"{path}: found NaN or infinity behind sample {samples}, expected finite samples"
            )
        samples += len(block)
        yield block


def main(files: Sequence[str]) -> None:
    """Checks all that can be checked, then separates file after file."""
    from data_pipeline import audio

    if not files:
        raise ConfigError("FILE: found none, expected one or more recordings")
    folders: dict[Path, str] = {}
    for file in files:
        audio.probe(file)
        folder = Path(_OUTPUT_DIR.value) / Path(file).stem
        if folder in folders:
            raise ConfigError(
                f"{file}: would be written to {folder} as {folders[folder]} is,"
                " expected names that differ before their ending"
            )
        if folder.exists() and not _OVERWRITE.value:
            raise ConfigError(
                f"{folder}: found already there, expected --overwrite or a new folder"
            )
        folders[folder] = file
    load_config(_MODEL.value)  # a wrong --model is told before TensorFlow is loaded

    from sccunet.separation import Separator

    separator = Separator.load(_MODEL.value)
    for folder, file in folders.items():
        separate_file(separator, file, folder, _ENCODING.value)
    print(f"stems of {len(files)} files: {_OUTPUT_DIR.value}")


if __name__ == "__main__":
    _MODEL = flags.DEFINE_string(
        "model", None, "A training workdir or an exported SavedModel.", required=True
    )
    _OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Where the stems go.", required=True)
    _ENCODING = flags.DEFINE_enum(
        "encoding", "float32", ["float32", "pcm24", "pcm16"], "Of the written WAVs; PCM clips at 1."
    )
    _OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace stems that are there already.")
    cli.run(main, takes_files=True)
