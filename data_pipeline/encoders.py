"""Encodes audio into files, with libsndfile or FFmpeg's libraries; for `audio_writer`.

The functions are context managers that yield a function to write blocks, float
`[samples, channels]`. Files at their paths are not whole until a context ends without an error.
soundfile and PyAV are imported only where they are used, so that programs show their flags at once.
"""

import concurrent.futures
import contextlib
import fractions
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from data_pipeline.wav_header import make_riff

Write = Callable[[np.ndarray], None]

# Encoding -> libsndfile's name for it, and bits per sample.
_SUBTYPES = {"pcm16": ("PCM_16", 16), "pcm24": ("PCM_24", 24), "float32": ("FLOAT", 32)}
# Sample rate -> least and most of the bitrates in kbit/s that MP3 has up to there.
_MP3_BITRATES = {12_000: (8, 64), 24_000: (8, 160), 48_000: (32, 320)}
# Nominal bitrates in kbit/s of Vorbis at 44.1 kHz, of its qualities 0, 0.1, ... 1, for 1 and 2
# channels. Source: libvorbis, lib/modes/setup_44u.h and setup_44.h.
_VORBIS_BITRATES = {
    1: (32, 48, 60, 70, 80, 86, 96, 110, 120, 140, 160),
    2: (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 500),
}
# Samples of silence in front of AAC, one block, without which FFmpeg's coder begins with a click.
# Decoders skip them, together with the coder's own 1024.
_SILENCE = 1_024
# libvorbis copies blocks to its stack.
_BLOCK = 1 << 14


@contextlib.contextmanager
def libsndfile_writer(
    path: str,
    ending: str,
    sample_rate: int,
    channels: int,
    encoding: str | None,
    bitrate: int,
    frames: int | None,
) -> Iterator[Write]:
    """Writes .wav, .flac, .mp3 and .ogg.

    Decoders of these find the number of samples in the file, and skip what a coder adds. A bitrate
    in kbit/s sets MP3's constant bitrate, and the quality of Vorbis, whose bitrate varies.

    Raises:
      OSError, soundfile.LibsndfileError: if the file cannot be written.
    """
    import soundfile

    kind, settings = ending[1:].upper(), {}
    if ending == ".mp3":
        encoding, subtype = None, "MPEG_LAYER_III"
        low, high = next(r for rate, r in _MP3_BITRATES.items() if sample_rate <= rate)
        level = (high - np.clip(bitrate, low, high)) / (high - low)
        settings = {"compression_level": level, "bitrate_mode": "CONSTANT"}
    elif ending == ".ogg":
        encoding, subtype = None, "VORBIS"
        quality = np.interp(bitrate, _VORBIS_BITRATES[channels], np.linspace(0, 1, 11))
        settings = {"compression_level": 1 - quality}
    else:
        subtype, bits = _SUBTYPES[encoding]
        size = (frames or 0) * channels * bits // 8
        if kind == "WAV" and (frames is None or size >= 2**32 - 2**16):
            kind = "RF64"
    written = 0

    def write(audio: np.ndarray) -> None:
        nonlocal written
        for start in range(0, len(audio), _BLOCK):
            file.write(_encoded(audio[start : start + _BLOCK], encoding))
        written += len(audio)

    with soundfile.SoundFile(
        os.fsencode(path), "w", sample_rate, channels, subtype, format=kind, **settings
    ) as file:
        yield write
    # libsndfile reports no error if it can't write the end of a compressed file.
    whole = not written or soundfile.info(os.fsencode(path)).frames == written
    if not whole or (ending == ".mp3" and os.path.getsize(path) != _stated_bytes(path)):
        raise OSError(f"not all of the {written} samples were written")
    if kind == "RF64" and written and os.path.getsize(path) < 2**32:
        make_riff(path)


def _stated_bytes(path: str) -> int:
    """Returns how many bytes an MP3 has according to LAME's tag in its first frame."""
    with open(path, "rb") as file:
        front = file.read(4_096)
    tag = max(front.find(b"Info"), front.find(b"Xing"))
    return int.from_bytes(front[tag + 12 : tag + 16], "big")


def _encoded(audio: np.ndarray, encoding: str | None) -> np.ndarray:
    """Converts float samples to soundfile's input for one of `_SUBTYPES`, or for a lossy coder."""
    if encoding in ("float32", None):
        return np.asarray(audio, np.float32)
    bits = _SUBTYPES[encoding][1]
    full = 2 ** (bits - 1)
    data = np.clip(np.rint(audio * float(full)), -full, full - 1)
    # soundfile expects 24 bits as the upper bits of 32.
    return data.astype(np.int16) if bits == 16 else data.astype(np.int32) << 8


@contextlib.contextmanager
def mp4_writer(
    path: str, sample_rate: int, channels: int, bitrate: int, names: Sequence[str]
) -> Iterator[Write]:
    """Writes .m4a: AAC streams of the given names, of which the first is the default.

    The edit list tells decoders the coder's delay and the exact number of samples.

    Args:
      path, sample_rate: of the file.
      channels: of each stream. Blocks are `[samples, streams * channels]`.
      bitrate: of each stream, in kbit/s.
      names: of the streams.

    Raises:
      OSError: if the file cannot be written.
    """
    import av

    layout, unit = ("mono", "stereo")[channels - 1], fractions.Fraction(1, sample_rate)
    samples = -_SILENCE
    # The edit list counts in the movie's unit of time, by default milliseconds.
    options = {"movie_timescale": str(sample_rate)}

    def write(audio: np.ndarray) -> None:
        nonlocal samples
        if not len(audio):
            return
        frames = []
        for planes in np.split(np.ascontiguousarray(audio.T, np.float32), len(streams)):
            frame = av.AudioFrame.from_ndarray(planes, "fltp", layout)
            frame.sample_rate, frame.pts, frame.time_base = sample_rate, samples, unit
            frames.append(frame)
        for packets in pool.map(lambda stream, frame: stream.encode(frame), streams, frames):
            container.mux(packets)
        samples += len(audio)

    try:
        with (
            open(path, "wb") as file,
            av.open(file, "w", "ipod", options=options) as container,
            concurrent.futures.ThreadPoolExecutor(len(names)) as pool,
        ):
            streams = [_aac_stream(container, sample_rate, layout, bitrate, name) for name in names]
            write(np.zeros((_SILENCE, channels * len(streams))))
            yield write
            for stream in streams:
                container.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error


def _aac_stream(container: Any, sample_rate: int, layout: str, bitrate: int, name: str) -> Any:
    # Without noise in place of noise, which would not sum to the mixture's.
    options = {"aac_pns": "0"}
    stream = container.add_stream("aac", rate=sample_rate, layout=layout, options=options)
    stream.bit_rate = 1_000 * bitrate
    if name:
        stream.metadata["handler_name"] = name
    return stream
