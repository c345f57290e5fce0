"""Decodes one track's files to WAVs."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_pipeline import audio
from data_pipeline.audio_writer import write_wav
from data_pipeline.errors import AudioError
from data_pipeline.wav import read_wav, wav_info
from experiments.preparing.inputs import STEM_MP4, Sources
from sccunet.checks import counted
from sccunet.files import TakenError, folder_written_whole, remove_left

# Lossy codecs overshoot full scale slightly and inaudibly; higher peaks deserve a warning.
_CLIPPED_PEAK = 1.1


def prepare_track(
    target: str, sources: Sources, sample_rate: int, trim: int = 0
) -> list[str] | None:
    """Decodes a track's files to 16-bit WAVs, which appear all together or not at all.

    Args:
      target: folder for the WAVs.
      sources: the files and streams to decode.
      sample_rate: sample rate of the WAVs, in Hz.
      trim: most samples by which the lengths may differ; all are cut to the shortest then.

    Returns:
      Warnings; None if another run has finished the track first.

    Raises:
      UserError: if a file cannot be decoded to its end or does not match the others, or the target
        cannot be written.
    """
    if not os.path.lexists(target):
        with contextlib.suppress(TakenError):
            return _write_track(target, sources, sample_rate, trim)
    check_finished(target, sources, sample_rate)
    return None


def check_finished(target: str, sources: Sources, sample_rate: int) -> None:
    """Checks that the target holds the files that would be written there.

    Raises:
      AudioError: if it does not.
    """
    expected = {f"{name}.wav" for name in sources}
    present = set(os.listdir(target)) if os.path.isdir(target) else set()
    for file in sorted(expected - present):
        raise AudioError(f"{target}: found no {file} in it, expected a prepared track or nothing")
    for file in sorted(expected):
        info = wav_info(os.path.join(target, file))
        if info.sample_rate != sample_rate:
            raise AudioError(
                f"{info.path}: found {info.sample_rate} Hz, expected {sample_rate} Hz or no file"
            )


def remove_leftovers(targets: Iterable[str]) -> None:
    """Removes what killed runs left beside finished tracks; writing a track does so itself."""
    names: dict[str, list[str]] = {}
    for target in targets:
        names.setdefault(os.path.dirname(target), []).append(os.path.basename(target))
    for folder, finished in names.items():
        remove_left(Path(folder), finished)


def _write_track(target: str, sources: Sources, sample_rate: int, trim: int) -> list[str]:
    warnings, lengths = [], {}
    first = first_channels = None
    with folder_written_whole(target, new=True) as part:
        for stem, (file, stream) in sources.items():
            what = f"{file} ({stem})" if file.endswith(STEM_MP4) else file
            samples = _decoded(what, file, stream, sample_rate, warnings)
            frames, channels = samples.shape
            first, first_channels = first or what, first_channels or channels
            if channels != first_channels:
                raise AudioError(
                    f"{what}: found {counted(channels, 'channel')}, expected {first_channels} as"
                    f" in {first}"
                )
            for other, length in lengths.items():
                if abs(frames - length) > trim:
                    raise AudioError(
                        f"{what}: found {counted(frames, 'sample')}, expected {length} as in"
                        f" {other}; --trim={abs(frames - length)} or more cuts to the shortest"
                    )
            lengths[what] = frames
            write_wav(part / f"{stem}.wav", samples, sample_rate)
        warnings += _cut_to_the_shortest(part, lengths, sample_rate)
    return warnings


def _decoded(
    what: str, file: str, stream: int | None, sample_rate: int, warnings: list[str]
) -> np.ndarray:
    """Decodes one stem to [samples, channels] at a sample rate, and adds warnings about it."""
    with audio.recording(file, stream) as (info, blocks):
        samples = np.concatenate(list(blocks))
    if info.choice:
        warnings.append(f"{file}: {info.choice}")
    if not np.isfinite(samples).all():
        at = np.argmin(np.isfinite(samples).all(axis=1)) / info.sample_rate
        raise AudioError(f"{what}: found NaN or infinity at {at:.2f} s, expected numbers")
    samples = audio.resample(samples, info.sample_rate, sample_rate)
    peak = np.abs(samples).max()
    if peak == 0:
        warnings.append(f"{what}: silent from start to end")
    elif peak > _CLIPPED_PEAK:
        warnings.append(f"{what}: peaks at {peak:.2f} of full scale, clipped to 16 bits")
    return samples


def _cut_to_the_shortest(folder: Path, lengths: dict[str, int], sample_rate: int) -> list[str]:
    """Cuts WAVs to the same length; returns a warning if they were not.

    Args:
      folder: folder of the track's WAVs.
      lengths: source -> samples of its WAV.
      sample_rate: in Hz.
    """
    shortest, longest = min(lengths, key=lengths.get), max(lengths.values())
    frames = lengths[shortest]
    if frames == longest:
        return []
    for path in folder.iterdir():
        if wav_info(path).frames > frames:
            write_wav(path, read_wav(path, frames=frames), sample_rate)
    return [
        f"{shortest}: {counted(longest - frames, 'sample')} shorter than the longest file of its"
        f" track; all are cut to {counted(frames, 'sample')}"
    ]
