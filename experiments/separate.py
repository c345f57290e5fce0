"""Separates recordings of any length into stems.

Examples:
  python -m experiments.separate --model=RUN --output_dir=OUT song.wav
  python -m experiments.separate --model=EXPORT --output_dir=OUT song.flac "other song.mp3" ALBUM/
  python -m experiments.separate --model=RUN --output_dir=OUT --stems=vocals,accompaniment song.wav
  python -m experiments.separate --model=RUN --output_dir=OUT --format=flac --mask=soft song.wav
  cat song.wav | python -m experiments.separate --model=RUN --output_dir=OUT -

A folder stands for the audio files in it, `-` for a WAV on standard input. Each file's stems are
written to OUT/<file name without its ending>/<stem>.wav (OUT/stdin/ for `-`), as long as the file,
at its sample rate and with its channels. A file that cannot be read is reported, and so is how much
is missing of a damaged one; the others are separated, and the exit code is 1.
"""

import collections
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from data_pipeline import audio
from data_pipeline.wav import AudioError, DamagedError, read_wav, wav_info
from experiments import cli
from sccunet.config import PRECISIONS, ConfigError, UserError
from sccunet.files import folder_written_whole
from sccunet.runs import load_config

ENCODINGS = ("float32", "pcm24", "pcm16")
CLIP_MODES = ("rescale", "clamp", "none")
RESIDUAL = "residual"
_BLOCK = 1 << 18  # samples of a written stem that are read at a time
_BAR = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"


def parse_stems(wanted: Sequence[str], stems: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Which of the model's stems are summed into each written one.

    Args:
      wanted: names of the model's stems; or `NAME=STEM+STEM+...`; or `accompaniment`, which is all
        but `vocals` where the model has no stem of that name. Nothing stands for all stems.
      stems: the model's.

    Raises:
      ConfigError: for a name that the model does not have, or one that is given twice.
    """
    if not wanted:
        return {stem: (stem,) for stem in stems}
    sums: dict[str, tuple[str, ...]] = {}
    for entry in wanted:
        name, given, parts = entry.partition("=")
        if given:
            chosen = tuple(parts.split("+"))
        elif name == "accompaniment" and name not in stems and "vocals" in stems:
            chosen = tuple(stem for stem in stems if stem != "vocals")
        else:
            chosen = (name,)
        for stem in chosen:
            if stem not in stems:
                raise ConfigError(
                    f"--stems: found {stem!r} in {entry!r}, expected some of {', '.join(stems)},"
                    " or sums with a name (NAME=STEM+STEM)"
                )
        if name in stems and chosen != (name,):
            raise ConfigError(f"--stems: found {entry!r}, expected a name that is no stem's")
        if name == RESIDUAL and given:
            raise ConfigError(f"--stems: found {entry!r}, but --residual writes that name")
        if not name or name != os.path.basename(name) or name in (".", ".."):
            raise ConfigError(f"--stems: found the name {name!r}, expected one for a file")
        if name in sums or len(set(chosen)) < len(chosen):
            raise ConfigError(f"--stems: found {entry!r}, expected every name once")
        sums[name] = chosen
    return sums


def separate_file(
    separator,
    path: str | os.PathLike,
    folder: str | os.PathLike,
    sums: Mapping[str, Sequence[str]],
    encoding: str = "float32",
    clip_mode: str = "none",
    ending: str = ".wav",
    residual: bool = False,
    damage_note: str | None = None,
) -> None:
    """Decodes, separates and writes a file block by block.

    Args:
      separator: a `sccunet.Separator`.
      path: what FFmpeg's libraries read, or "-" for a WAV on standard input.
      folder: of the stems; it is there whole or not at all. If it was there before, its stems are
        replaced one by one.
      sums: as `parse_stems` returns.
      encoding: one of `ENCODINGS`.
      clip_mode: what happens to samples beyond full scale. "rescale": if there are any, all of the
        file's stems are turned down by one factor; "clamp": they are cut off; "none": they stay,
        which floats alone can hold.
      ending: ".wav" or ".flac".
      residual: also write what the stems leave of the mixture.
      damage_note: name of a file beside the stems that says what is missing of a damaged recording.

    Raises:
      DamagedError: if a part of the file is missing or damaged; the stems of the rest are written.
      AudioError: if nothing can be decoded, or a stem cannot be written; then nothing is.
    """
    names = [*sums, RESIDUAL] if residual else list(sums)
    damage: DamagedError | None = None
    peak = 0.0

    def mixture(blocks: Iterable[np.ndarray], waiting: collections.deque) -> Iterator[np.ndarray]:
        """The blocks as they come; a damaged file ends where it can't be read further."""
        nonlocal damage
        try:
            for block in _finite(blocks, path):
                if residual:
                    waiting.append(block)
                yield block
        except DamagedError as error:
            damage = error

    with folder_written_whole(folder) as partial:
        with contextlib.ExitStack() as stack:
            info, blocks = stack.enter_context(audio.recording(path, salvage=True))
            rate = info.sample_rate
            frames = round(info.about * rate) if info.about else None
            # A guess may be wrong: then room is left for more.
            most = frames if info.seconds else frames and 2 * frames
            bar = stack.enter_context(_progress(Path(folder).name, frames, rate))
            # The peak is known at the end only: until then rescaled stems are kept as they are.
            later, unscaled = clip_mode == "rescale", partial / "unscaled"
            writers = {
                name: stack.enter_context(
                    audio.audio_writer(
                        unscaled / f"{name}.wav" if later else partial / f"{name}{ending}",
                        rate,
                        info.channels,
                        "float32" if later else encoding,
                        most,
                    )
                )
                for name in names
            }
            waiting: collections.deque = collections.deque()
            for stems in separator.stream(mixture(blocks, waiting), rate):
                written = {
                    name: sum((stems[stem] for stem in parts[1:]), stems[parts[0]])
                    for name, parts in sums.items()
                }
                samples = len(next(iter(stems.values())))
                if residual:
                    written[RESIDUAL] = _take(waiting, samples, info.channels) - sum(stems.values())
                for name, block in written.items():
                    if clip_mode == "clamp":
                        block = np.clip(block, -1, 1)
                    peak = max(peak, float(np.abs(block).max(initial=0)))
                    writers[name](block)
                bar.update(samples)
        if later:
            for name in names:
                source, target = unscaled / f"{name}.wav", partial / f"{name}{ending}"
                _rescale(source, target, encoding, max(peak, 1.0))
            unscaled.rmdir()
        if damage and damage_note:
            (partial / damage_note).write_bytes(os.fsencode(f"{damage}\n"))
    if later and peak > 1:
        print(f"{path}: stems turned down by {20 * np.log10(peak):.1f} dB (--clip_mode=rescale)")
    if damage:
        raise damage


def _finite(blocks: Iterable[np.ndarray], path: str | os.PathLike) -> Iterator[np.ndarray]:
    """The blocks [samples, channels] as they come, if all of their samples are numbers."""
    samples = 0
    for block in blocks:
        if not np.isfinite(block).all():
            raise AudioError(
                f"{path}: found NaN or infinity behind sample {samples}, expected finite samples"
            )
        samples += len(block)
        yield block


def _progress(name: str, frames: int | None, rate: int):
    from tqdm import tqdm

    return tqdm(
        total=frames,
        desc=name,
        unit="s",
        unit_scale=1 / rate,
        bar_format=_BAR if frames else None,
    )


def _take(waiting: collections.deque, samples: int, channels: int) -> np.ndarray:
    """The first samples of the blocks that wait, [samples, channels]."""
    taken = [np.zeros((0, channels), np.float32)]
    while samples:
        block = waiting.popleft()
        taken.append(block[:samples])
        if len(block) > samples:
            waiting.appendleft(block[samples:])
        samples -= len(taken[-1])
    return np.concatenate(taken)


def _rescale(source: Path, target: Path, encoding: str, peak: float) -> None:
    """Writes a float WAV, divided by a number, in its final form."""
    info = wav_info(source)
    with audio.audio_writer(
        target, info.sample_rate, info.channels, encoding, info.frames
    ) as write:
        for start in range(0, info.frames, _BLOCK):
            write(read_wav(info, start, _BLOCK) / np.float32(peak))
    source.unlink()


def plan(
    files: Sequence[str],
    output_dir: str | os.PathLike,
    overwrite: bool,
    skip_existing: bool,
    written: Sequence[str] = (),
) -> dict[Path, str]:
    """Folder of stems -> file, for each file to be separated.

    Args:
      files: files, folders of files, and "-" for standard input.
      output_dir: where the folders are.
      overwrite: whether they may exist.
      skip_existing: leave out the files whose folders hold what is to be written.
      written: names of the files that are to be written into each folder.

    Raises:
      ConfigError: if two files would share a folder, one exists or cannot be made, or a file lies
        in one.
      AudioError: for a folder without audio files.
    """
    if not os.fspath(output_dir):
        raise ConfigError("--output_dir: found nothing, expected a folder")
    if overwrite and skip_existing:
        raise ConfigError("--skip_existing: found --overwrite too, expected one of them")
    folders: dict[Path, str] = {}
    for given in files:
        for file in audio.recordings_in(given) if os.path.isdir(given) else [given]:
            name = "stdin" if file == "-" else Path(file).stem
            if not name.strip("."):
                raise ConfigError(f"{file}: found no name before its ending, expected one")
            folder = Path(output_dir) / name
            if folder in folders:
                raise ConfigError(
                    f"{file}: would be written to {folder} as {folders[folder]} is,"
                    " expected names that differ before their ending"
                )
            folders[folder] = file
    for folder, file in list(folders.items()):
        if not os.path.lexists(folder):
            continue
        if not folder.is_dir():
            raise ConfigError(f"{folder}: found a file, expected a folder or nothing")
        if skip_existing and all((folder / name).exists() for name in written):
            del folders[folder]
        elif not (overwrite or skip_existing):
            raise ConfigError(
                f"{folder}: found already there, expected --overwrite, --skip_existing or a new"
                " folder"
            )
        elif Path(file).resolve().parent == folder.resolve():
            raise ConfigError(f"{file}: found in the folder of its own stems, expected another")
    parent = Path(output_dir)
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{output_dir}: cannot be written to, expected a folder that can")
    return folders


def _report(error: UserError) -> None:
    cli.report(str(error).replace("\n", "\\n"))  # names can hold anything


def define_flags() -> None:
    """What is separated, and how its stems are written."""
    flags.DEFINE_string(
        "model", None, "A training workdir or an exported SavedModel.", required=True
    )
    flags.DEFINE_string("output_dir", None, "Where the stems go.", required=True)
    flags.DEFINE_list(
        "stems",
        [],
        "What to write: stems of the model, sums (backing=drums+bass), or accompaniment, which is"
        " all but the vocals. Default: every stem.",
    )
    flags.DEFINE_bool(
        "residual",
        False,
        "Also write residual: the mixture minus the sum of all of the model's stems.",
    )
    cli.define_reconstruction()
    flags.DEFINE_enum(
        "precision",
        "float32",
        PRECISIONS,
        "Of the network's inner layers. mixed_bfloat16 is faster on CPUs and GPUs that have it, and"
        " needs a training workdir.",
    )
    flags.DEFINE_enum("format", "wav", ["wav", "flac"], "File format of the stems.")
    flags.DEFINE_enum(
        "encoding",
        None,
        ENCODINGS,
        "Sample format of the stems. Default: float32 in WAV, pcm24 in FLAC.",
    )
    flags.DEFINE_enum(
        "clip_mode",
        None,
        CLIP_MODES,
        "Samples beyond full scale. rescale: all stems of the file are turned down alike; clamp:"
        " they are cut off; none: they stay. Default: none for float32, else rescale.",
    )


def settings_of_flags() -> dict[str, Any]:
    """Arguments of `separate_file`, as the flags say.

    Raises:
      ConfigError: if they cannot be, or there is no model.
    """
    given = flags.FLAGS
    ending = f".{given.format}"
    encoding = given.encoding or ("pcm24" if ending == ".flac" else "float32")
    if ending == ".flac" and encoding == "float32":
        raise ConfigError("--encoding: found float32, expected pcm16 or pcm24 in FLAC")
    clip_mode = given.clip_mode or ("none" if encoding == "float32" else "rescale")
    if clip_mode == "none" and encoding != "float32":
        raise ConfigError(
            f"--clip_mode: found none, expected rescale or clamp: {encoding} ends at full scale"
        )
    cli.reconstruction_of_flags()  # is checked
    stems = load_config(given.model).model.stems
    sums = parse_stems(given.stems, stems)
    if given.residual and RESIDUAL in stems:
        raise ConfigError("--residual: found a stem of this name, expected none")
    return {
        "sums": sums,
        "encoding": encoding,
        "clip_mode": clip_mode,
        "ending": ending,
        "residual": given.residual,
    }


def names_written(sums: Iterable[str], ending: str, residual: bool, **_: Any) -> list[str]:
    """Names of the files that `separate_file` writes with these arguments."""
    return [f"{name}{ending}" for name in (*sums, *[RESIDUAL] * residual)]


def main(files: Sequence[str]) -> None:
    """Checks all that can be checked, then separates file after file."""
    if not files:
        raise ConfigError("FILE: found none, expected recordings, folders of them, or -")
    given = flags.FLAGS
    # A wrong --model is told before TensorFlow is loaded.
    settings = settings_of_flags()
    folders = plan(
        files, given.output_dir, given.overwrite, given.skip_existing, names_written(**settings)
    )
    count, done = len(folders), 0
    for folder, file in list(folders.items()):
        if file != "-":
            try:
                with audio.recording(file, salvage=True):
                    pass
            except UserError as error:
                _report(error)
                del folders[folder]
    if folders:
        from sccunet.separation import Separator

        separator = Separator.load(given.model, cli.reconstruction_of_flags(), given.precision)
    for folder, file in folders.items():
        try:
            separate_file(separator, file, folder, **settings)
            done += 1
        except UserError as error:
            _report(error)
    left_out = ", without those that had theirs" if given.skip_existing else ""
    print(f"stems of {done} of {count} files{left_out}: {given.output_dir}")
    if done < count:
        sys.exit(1)


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_bool("overwrite", False, "Replace stems that are there already.")
    flags.DEFINE_bool(
        "skip_existing", False, "Leave out files whose stems are there: goes on where it stopped."
    )
    cli.run(main, takes_files=True)
