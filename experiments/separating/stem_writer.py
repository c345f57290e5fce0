"""Writes the stems of a recording to their files, block by block."""

import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from data_pipeline.audio_writer import audio_writer
from data_pipeline.wav import read_wav, wav_info
from experiments.separating.output import Output

_BLOCK = 1 << 16  # samples that are read at a time from written stems

Blocks = Mapping[str, np.ndarray]  # name of a stem, or mixture -> [samples, channels]


@contextlib.contextmanager
def stem_writer(
    folder: Path, track: str, output: Output, sample_rate: int, channels: int, frames: int | None
) -> Iterator[Callable[[Blocks], None]]:
    """Context manager that yields a function to write blocks of all of `output.names`.

    The files appear when the context ends without an error.

    Args:
      folder: folder of the files.
      track: name of the recording.
      output: what is written.
      sample_rate, channels: of the recording; `frames` as for `audio_writer`.

    Raises:
      AudioError: as `audio_writer`.
    """
    settings = (sample_rate, channels, output.encoding, frames, output.bitrate)
    files = output.files(track)
    with contextlib.ExitStack() as stack:
        if output.format.stems:
            mixture, *stems = output.names
            path = folder / files[mixture]
            write = stack.enter_context(audio_writer(path, *settings, stems))
            yield lambda blocks: write(np.concatenate([*map(blocks.get, output.names)], axis=1))
            return
        writers = {
            name: stack.enter_context(audio_writer(folder / file, *settings))
            for name, file in files.items()
        }
        # Encoders compute while they let other threads run.
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(len(files)))
        yield lambda blocks: [*pool.map(lambda name: writers[name](blocks[name]), files)]


def rescale(
    unscaled: Path,
    floats: Output,
    folder: Path,
    track: str,
    output: Output,
    peak: float,
    advance: Callable[[int], object],
) -> None:
    """Writes what is in float WAVs, divided by their peak.

    Args:
      unscaled: folder of the WAVs, which `stem_writer` wrote for `floats`.
      floats: as `output`, for these WAVs.
      folder, track, output: as for `stem_writer`.
      peak: what all samples are divided by.
      advance: is told each number of samples that are done.

    Raises:
      AudioError: as `audio_writer`.
    """
    infos = {name: wav_info(unscaled / file) for name, file in floats.files(track).items()}
    one = infos[output.names[0]]
    settings = one.sample_rate, one.channels, one.frames
    with stem_writer(folder, track, output, *settings) as write:
        for start in range(0, one.frames, _BLOCK):
            scaled = {
                name: read_wav(info, start, _BLOCK) / np.float32(peak)
                for name, info in infos.items()
            }
            write(scaled)
            advance(min(_BLOCK, one.frames - start))
