"""Separates a recording into files of its stems, block by block; for separate and catalogue."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipeline import audio
from data_pipeline.audio_writer import audio_writer, check_format
from data_pipeline.errors import AudioError, DamagedError
from data_pipeline.names import split_names
from data_pipeline.wav import read_wav, wav_info
from sccunet.config import ConfigError
from sccunet.files import folder_written_whole

RESIDUAL = "residual"
_BLOCK = 1 << 18  # samples that are read at a time from a written stem
_BAR = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"


@dataclasses.dataclass(frozen=True)
class Output:
    """Which files are written for a recording, and how.

    Attributes:
      sums: name of a file without extension -> the model's stems that are summed in it, as
        `parse_stems` returns them.
      ending: extension of the files, one of `WRITABLE`.
      encoding: sample format, one of `WRITABLE[ending]`.
      clip_mode: treatment of samples beyond full scale. "rescale": if there are any, all stems of
        the recording are divided by one factor; "clamp": the samples are limited to full scale;
        "none": they are kept, which only floats allow.
      residual: whether to also write the mixture minus all stems.
    """

    sums: Mapping[str, Sequence[str]]
    ending: str = ".wav"
    encoding: str = "float32"
    clip_mode: str = "none"
    residual: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the files, without extension."""
        return [*self.sums, RESIDUAL] if self.residual else list(self.sums)

    @property
    def files(self) -> list[str]:
        """Names of the files."""
        return [f"{name}{self.ending}" for name in self.names]


def parse_stems(wanted: Sequence[str], stems: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns which of the model's stems are summed in each file.

    Args:
      wanted: names of the model's stems; or `NAME=STEM+STEM+...`; or `accompaniment`, which is all
        stems but `vocals` if the model has no stem of that name; or several of these with commas
        between them. Empty: all stems.
      stems: the model's stems.

    Raises:
      ConfigError: for a stem that the model does not have, or a name that is given twice.
    """
    if not wanted:
        return {stem: (stem,) for stem in stems}
    sums: dict[str, tuple[str, ...]] = {}
    for entry in (entry for text in wanted for entry in split_names(text, stems)):
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
                    " or named sums (NAME=STEM+STEM)"
                )
        if name in stems and chosen != (name,):
            raise ConfigError(f"--stems: found {entry!r}, expected a name other than a stem's")
        if name == RESIDUAL and given:
            raise ConfigError(
                f"--stems: found {entry!r}, expected another name: --residual uses this one"
            )
        if not name or name != os.path.basename(name) or name in (".", ".."):
            raise ConfigError(f"--stems: found the name {name!r}, expected a file name")
        if name in sums or len(set(chosen)) < len(chosen):
            raise ConfigError(f"--stems: found {entry!r}, expected every name once")
        sums[name] = chosen
    return sums


def separate_file(
    separator,
    path: str | os.PathLike,
    folder: str | os.PathLike,
    output: Output,
    damage_note: str | None = None,
    stream: int | None = None,
) -> None:
    """Decodes, separates and writes a recording; memory does not depend on its length.

    Args:
      separator: a `sccunet.Separator`.
      path: a file that FFmpeg's libraries can read, or "-" for a WAV on standard input.
      folder: the stems' folder, written whole or not at all. If it exists, its stems are replaced
        one by one.
      output: what is written.
      damage_note: name of a file in `folder` that says what is missing of a damaged recording.
      stream: index of the audio stream, as for `audio.recording`.

    Raises:
      DamagedError: if a part of the file is missing or damaged; the stems of the rest are written.
      AudioError: if nothing can be decoded, or a stem cannot be written; then nothing is written.
    """
    rescale, title = output.clip_mode == "rescale", Path(folder).name
    with (
        folder_written_whole(folder) as partial,
        audio.recording(path, stream, salvage=True) as opened,
    ):
        info, _ = opened
        for file in output.files:  # before the work
            check_format(partial / file, info.sample_rate, info.channels, output.encoding)
        if rescale:  # by the peak, which is known only at the end: first write unscaled stems
            unscaled = dataclasses.replace(output, ending=".wav", encoding="float32")
            unscaled_dir = partial / "unscaled"
            peak, damage = _write_stems(separator, path, opened, unscaled_dir, unscaled, title)
            for file, source in zip(output.files, unscaled.files, strict=True):
                _rescale(unscaled_dir / source, partial / file, output.encoding, max(peak, 1.0))
            unscaled_dir.rmdir()
        else:
            peak, damage = _write_stems(separator, path, opened, partial, output, title)
        if damage and damage_note:
            (partial / damage_note).write_bytes(os.fsencode(f"{damage}\n"))
    if rescale and peak > 1:
        print(f"{path}: stems turned down by {20 * np.log10(peak):.1f} dB (--clip_mode=rescale)")
    if damage:
        raise damage


def _write_stems(
    separator,
    path: str | os.PathLike,
    opened: tuple[audio.AudioInfo, Iterator[np.ndarray]],
    folder: Path,
    output: Output,
    title: str,
) -> tuple[float, DamagedError | None]:
    """Separates and writes; returns the peak of all stems, and the damage, if any."""
    peak, (info, blocks) = 0.0, opened
    with contextlib.ExitStack() as stack:
        rate, channels = info.sample_rate, info.channels
        frames = round(info.about * rate) if info.about else None
        # An estimated length may be wrong: then leave room for more.
        most = frames if info.seconds else frames and 2 * frames
        bar = stack.enter_context(_progress(title, frames, rate))
        write = {
            name: stack.enter_context(
                audio_writer(folder / file, rate, channels, output.encoding, most)
            )
            for name, file in zip(output.names, output.files, strict=True)
        }
        mixture = _Mixture(path, blocks, channels, keep=output.residual)
        for stems in separator.stream(mixture, rate):
            written = {
                name: sum((stems[stem] for stem in parts[1:]), stems[parts[0]])
                for name, parts in output.sums.items()
            }
            samples = len(next(iter(stems.values())))
            if output.residual:
                written[RESIDUAL] = mixture.take(samples) - sum(stems.values())
            for name, block in written.items():
                if output.clip_mode == "clamp":
                    block = np.clip(block, -1, 1)
                peak = max(peak, float(np.abs(block).max(initial=0)))
                write[name](block)
            if bar.total:  # may be a guess, and the bar's format needs one
                bar.total = max(bar.total, bar.n + samples)
            bar.update(samples)
    return peak, mixture.damage


class _Mixture:
    """Iterates over a recording's blocks [samples, channels]; a damaged recording ends early.

    Args:
      path: path for error messages.
      blocks: from `audio.recording`.
      channels: number of channels of each block.
      keep: whether samples are kept for `take`.

    Attributes:
      damage: the error of a damaged recording, set after the last block.

    Raises:
      AudioError: during iteration, if a sample is NaN or infinite.
    """

    def __init__(
        self, path: str | os.PathLike, blocks: Iterable[np.ndarray], channels: int, keep: bool
    ):
        self.damage: DamagedError | None = None
        self._path, self._blocks, self._keep = path, blocks, keep
        self._waiting = [np.zeros((0, channels), np.float32)]

    def __iter__(self) -> Iterator[np.ndarray]:
        samples = 0
        try:
            for block in self._blocks:
                if not np.isfinite(block).all():
                    raise AudioError(
                        f"{self._path}: found NaN or infinity after sample {samples}, expected"
                        " finite samples"
                    )
                samples += len(block)
                if self._keep:
                    self._waiting.append(block)
                yield block
        except DamagedError as error:
            self.damage = error

    def take(self, samples: int) -> np.ndarray:
        """Returns the next samples that were iterated over, [samples, channels]."""
        waiting = np.concatenate(self._waiting)
        self._waiting = [waiting[samples:]]
        return waiting[:samples]


def _progress(title: str, frames: int | None, rate: int):
    from tqdm import tqdm

    return tqdm(
        total=frames,
        desc=title,
        unit="s",
        unit_scale=1 / rate,
        disable=None,
        bar_format=_BAR if frames else None,
    )


def _rescale(source: Path, target: Path, encoding: str, peak: float) -> None:
    """Writes a float WAV divided by `peak` in its final encoding, and removes it."""
    info = wav_info(source)
    with audio_writer(target, info.sample_rate, info.channels, encoding, info.frames) as write:
        for start in range(0, info.frames, _BLOCK):
            write(read_wav(info, start, _BLOCK) / np.float32(peak))
    source.unlink()
