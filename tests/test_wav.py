"""WAV files: exact scaling, headers of all kinds, pipes, and one line for every bad file."""

import io
import os
import struct
import sys
import threading

import numpy as np
import pytest
import soundfile
from audio_files import integers, salvage

from data_pipeline import audio
from data_pipeline.audio_writer import write_wav
from data_pipeline.errors import AudioError, DamagedError
from data_pipeline.wav import read_wav, wav_info

_SUBTYPES = {
    "pcm8": "PCM_U8",
    "pcm16": "PCM_16",
    "pcm24": "PCM_24",
    "pcm32": "PCM_32",
    "float32": "FLOAT",
    "float64": "DOUBLE",
}


def _write_raw(path, x: np.ndarray, encoding: str) -> None:
    """Returns a canonical WAV, written byte by byte without an audio library."""
    if encoding == "pcm24":
        data = (x.astype("<i4") << 8).view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    elif encoding == "pcm8":
        data = (x + 128).astype(np.uint8).tobytes()
    else:
        data = x.astype({"pcm16": "<i2", "pcm32": "<i4", "float32": "<f4"}[encoding]).tobytes()
    bits = int(encoding.lstrip("pcmfloat"))
    frame = x.shape[1] * bits // 8
    tag = 3 if encoding == "float32" else 1
    fmt = struct.pack("<HHIIHH", tag, x.shape[1], 8000, 8000 * frame, frame, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt
    # An odd-sized chunk with its padding byte, as audio editors write it.
    body += b"note" + struct.pack("<I", 3) + b"odd\0"
    body += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("encoding", ["pcm8", "pcm16", "pcm24", "pcm32"])
def test_integers_are_divided_by_full_scale_exactly(tmp_path, encoding, channels):
    bits = int(encoding[3:])
    x = integers(bits, channels=channels)
    path = tmp_path / "x.wav"
    _write_raw(path, x, encoding)
    info = wav_info(path)
    assert (info.encoding, info.channels, info.frames) == (encoding, channels, len(x))
    assert (info.sample_rate, info.data_offset, info.path) == (8000, 56, str(path))
    assert info.seconds == len(x) / 8000
    assert info.frame_bytes == channels * bits // 8
    expected = (x / 2.0 ** (bits - 1)).astype(np.float32)
    for found in (read_wav(info), audio.read(path)[0]):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("order", ["", "be"])
@pytest.mark.parametrize("encoding", list(_SUBTYPES))
def test_both_readers_agree_with_soundfile_on_wav(tmp_path, encoding, order):
    path = tmp_path / "x.wav"
    x = np.random.default_rng(0).uniform(-1, 1, (5_000, 3))
    endian = "BIG" if order else "LITTLE"  # RIFX or RIFF
    soundfile.write(path, x, 48_000, _SUBTYPES[encoding], endian)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    assert wav_info(path).encoding == encoding + order
    np.testing.assert_array_equal(read_wav(path), expected)
    found, rate = audio.read(path)
    assert rate == 48_000
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(read_wav(path, 17, 100), expected[17:117])
    np.testing.assert_array_equal(read_wav(path, 4_990, 100), expected[4_990:])
    assert read_wav(path, 6_000).shape == (0, 3)


@pytest.mark.parametrize("kind", ["WAVEX", "RF64"])
def test_other_wav_headers(tmp_path, kind):
    path = tmp_path / "x.wav"
    x = integers(24)
    soundfile.write(path, (x << 8).astype(np.int32), 44_100, subtype="PCM_24", format=kind)
    assert wav_info(path).encoding == "pcm24"
    np.testing.assert_array_equal(read_wav(path), (x / 2**23).astype(np.float32))


def _bad_wavs(tmp_path):
    whole = tmp_path / "whole.wav"
    _write_raw(whole, integers(16, 100), "pcm16")
    data = whole.read_bytes()
    alaw = tmp_path / "alaw.wav"
    soundfile.write(alaw, np.zeros(100), 8_000, subtype="ALAW")
    return {
        "empty.wav": (b"", "found an empty file (0 bytes), expected a WAV file"),
        "cut.wav": (
            data[:-200],
            "found 50 samples (truncated), expected the 100 samples that its header promises",
        ),
        "header.wav": (
            data[:52] + bytes(4),
            "found a WAV header without samples, expected a WAV file with samples",
        ),
        "headless.wav": (
            data[:44],
            "found a WAV header without a data chunk, expected a WAV file with samples",
        ),
        "alaw.wav": (
            alaw.read_bytes(),
            "found WAV format 6 with 8 bits, 1 channel and 8000 Hz, expected one of pcm8, pcm16,"
            " pcm24, pcm32, float32, float64 (sccunet prepare converts)",
        ),
    }


@pytest.mark.parametrize("name", ["empty.wav", "cut.wav", "header.wav", "headless.wav", "alaw.wav"])
def test_bad_wav(tmp_path, name):
    data, message = _bad_wavs(tmp_path)[name]
    path = tmp_path / name
    path.write_bytes(data)
    readers = [wav_info, read_wav]
    if name != "alaw.wav":  # FFmpeg's libraries can read it
        readers += [audio.read, audio.probe]
    for reader in readers:
        with pytest.raises(AudioError) as caught:
            reader(path)
        # FFmpeg's readers expect audio of any kind.
        assert str(caught.value).replace("an audio file", "a WAV file") == f"{path}: {message}"


def test_wav_that_only_ffmpegs_libraries_can_read(tmp_path):
    path = tmp_path / "alaw.wav"
    soundfile.write(path, 0.5 * np.sin(np.arange(1000) / 9), 8_000, subtype="ALAW")
    truth, _ = soundfile.read(path, dtype="float32", always_2d=True)
    samples, rate = audio.read(path)
    assert rate == 8_000
    np.testing.assert_array_equal(samples, truth)


def test_wav_of_a_stream_of_unknown_length(tmp_path):
    path = tmp_path / "piped.wav"
    write_wav(path, np.linspace(-0.5, 0.5, 100)[:, None], 44_100)
    data = bytearray(path.read_bytes())
    data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert wav_info(path).frames == 100


def test_missing_and_unreadable_files(tmp_path):
    missing = tmp_path / "missing.wav"
    with pytest.raises(AudioError) as caught:
        wav_info(missing)
    assert str(caught.value) == f"{missing}: found no such file, expected a WAV file"
    with pytest.raises(AudioError) as caught:
        audio.probe(missing)
    assert str(caught.value) == f"{missing}: found no such file, expected an audio file"
    for reader in (wav_info, audio.probe):
        with pytest.raises(AudioError) as caught:
            reader(tmp_path)
        assert (
            str(caught.value)
            == f"{tmp_path}: cannot be read (Is a directory), expected a readable file"
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(tmp_path):
    path = tmp_path / "x.wav"
    write_wav(path, np.zeros((10, 1)), 44_100)
    path.chmod(0)
    for reader in (wav_info, audio.probe):
        with pytest.raises(AudioError, match=r"x\.wav: cannot be read \(Permission denied\)"):
            reader(path)


def test_wav_that_shrinks_after_its_header_was_read(tmp_path):
    path = tmp_path / "x.wav"
    write_wav(path, np.zeros((100, 1)), 44_100)
    info = wav_info(path)
    os.truncate(path, 100)
    with pytest.raises(AudioError, match=r"x\.wav: found a file that got shorter while in use"):
        read_wav(info)


def _wav_bytes(x: np.ndarray, length: int | None = None, riff: int | None = None) -> bytes:
    """Returns a 16-bit WAV at 8000 Hz whose header states `length` bytes of samples."""
    data = x.astype("<i2").tobytes()
    length = len(data) if length is None else length
    frame = 2 * x.shape[1]
    return (
        struct.pack(
            "<4sI8sIHHIIHH4sI",
            *(b"RIFF", 36 + len(data) if riff is None else riff, b"WAVEfmt ", 16),
            *(1, x.shape[1], 8000, 8000 * frame, frame, 16, b"data", length),
        )
        + data
    )


@pytest.fixture
def pipe(monkeypatch):
    """Replaces standard input by a pipe with the given bytes."""
    opened = []

    def put(data: bytes) -> None:
        end, start = os.pipe()

        def feed():
            with open(start, "wb") as file:
                file.write(data)

        thread = threading.Thread(target=feed)
        file = os.fdopen(end, "rb")
        opened.append((file, thread))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        thread.start()

    yield put
    for file, thread in opened:
        while not file.closed and file.read(2**16):  # so that the thread ends
            pass
        thread.join()


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_recording_at_all_rates(tmp_path, rate, channels):
    for ending in ("wav", "flac"):
        path = tmp_path / f"Café del Mär 音 {channels}.{ending}"
        x = integers(16, 5_000, channels)
        soundfile.write(path, x.astype(np.int16), rate)
        info, found, message = salvage(path)
        assert info == audio.AudioInfo(rate, channels, 1, 5_000 / rate, 5_000 / rate)
        assert message == ""
        np.testing.assert_array_equal(found, (x / 2**15).astype(np.float32))


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("encoding", list(_SUBTYPES))
def test_recording_of_all_encodings(tmp_path, encoding, channels):
    path = tmp_path / "x.wav"
    x = np.random.default_rng(0).uniform(-1, 1, (300, channels))
    soundfile.write(path, x, 44_100, subtype=_SUBTYPES[encoding])
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    with audio.recording(path) as (info, blocks):
        np.testing.assert_array_equal(np.concatenate(list(blocks)), expected)
    assert info == audio.AudioInfo(44_100, channels, 1, 300 / 44_100, 300 / 44_100)
    soundfile.write(path, x[:1], 44_100, subtype=_SUBTYPES[encoding])
    np.testing.assert_array_equal(audio.read(path)[0], expected[:1])


def test_recording_reads_block_by_block(tmp_path):
    path = tmp_path / "x.wav"
    x = integers(16, 100_000, 1)
    path.write_bytes(_wav_bytes(x))
    with audio.recording(path) as (_, blocks):
        lengths = [len(block) for block in blocks]
    assert sum(lengths) == 100_000
    assert max(lengths) == 2**14
    with pytest.raises(AudioError, match=r"x\.wav: found 1 audio stream, expected at least 3"):
        audio.read(path, 2)


@pytest.mark.parametrize(
    ("length", "known"),
    [(None, True), (0, False), (2**32 - 1, False), (2**31 - 4096, False), (2**31, False)],
)
def test_standard_input(pipe, length, known):
    x = integers(16, 50_000, 1)
    data = _wav_bytes(x, length, None if known else 2**32 - 1)
    pipe(data + (b"LIST\2\0\0\0no" if known else b""))
    info, found, message = salvage("-")
    assert info == audio.AudioInfo(8_000, 1, 1, *[6.25 if known else None] * 2)
    assert message == ""
    np.testing.assert_array_equal(found, (x / 2**15).astype(np.float32))


def test_long_header_on_standard_input(tmp_path, pipe):
    path = tmp_path / "x.rf64"
    x = integers(16)
    soundfile.write(path, x.astype(np.int16), 44_100, format="RF64")
    for size in (None, 0, 2**64 - 1):
        data = bytearray(path.read_bytes())
        assert data[12:16] == b"ds64"
        if size is not None:
            data[28:36] = struct.pack("<Q", size)
        pipe(bytes(data))
        with audio.recording("-") as (info, blocks):
            np.testing.assert_array_equal(np.concatenate(list(blocks)) * 2**15, x)
        assert info.seconds == (9_000 / 44_100 if size is None else None)


def test_standard_input_that_ends_early(pipe):
    x = integers(16, 40_000, 1)
    data = _wav_bytes(x)[:-48_001]  # not even whole samples
    pipe(data)
    given = []
    with pytest.raises(AudioError) as caught, audio.recording("-") as (_, blocks):
        given.extend(blocks)
    assert not isinstance(caught.value, DamagedError)
    assert str(caught.value) == (
        "standard input: found 15999 samples (truncated), expected the 40000 samples that its"
        " header promises"
    )
    pipe(data)
    info, found, message = salvage("-")
    assert info.seconds == 5
    np.testing.assert_array_equal(found[:, 0] * 2**15, x[:15_999, 0])
    assert message == (
        "standard input: found 2.00 s of audio (truncated or damaged), 3.00 s of the 5.00 s that"
        " its header promises are missing"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "nothing (0 bytes), expected a WAV file"),
        (b"ID3 an mp3", "no WAV header, expected a WAV file"),
        (bytes(100_000), "no WAV header, expected a WAV file"),
        (_wav_bytes(np.ones((9, 1)))[:40], "a WAV header without a data chunk, expected a WAV"),
        (_wav_bytes(np.ones((0, 1))), "a WAV header without samples, expected a WAV file with"),
        (_wav_bytes(np.ones((0, 1)), 100), "0 samples (truncated), expected the 50 samples that"),
    ],
)
@pytest.mark.parametrize("salvage", [False, True])
def test_standard_input_without_audio(pipe, data, message, salvage):
    pipe(data)
    with pytest.raises(AudioError) as caught, audio.recording("-", salvage=salvage):
        pass
    assert not isinstance(caught.value, DamagedError)
    assert str(caught.value).startswith(f"standard input: found {message}")


@pytest.mark.parametrize("held", [1, 20_000])
def test_truncated_wav_is_salvaged(tmp_path, held):
    path = tmp_path / "cut.wav"
    x = integers(16, 80_000, 2)
    path.write_bytes(_wav_bytes(x)[: 44 + 4 * held + 3])
    info, found, message = salvage(path)
    assert info == audio.AudioInfo(8_000, 2, 1, 10, 10)
    np.testing.assert_array_equal(found, (x[:held] / 2**15).astype(np.float32))
    assert message == (
        f"{path}: found {held / 8_000:.2f} s of audio (truncated or damaged),"
        f" {10 - held / 8_000:.2f} s of the 10.00 s that its header promises are missing"
    )
    with pytest.raises(
        AudioError, match=rf"cut\.wav: found {held} samples? \(truncated\), expected"
    ):
        audio.read(path)


def test_wav_without_any_sample_is_not_salvaged(tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(_wav_bytes(np.zeros((100, 1)))[:45])
    with pytest.raises(AudioError) as caught:
        salvage(path)
    assert type(caught.value) is AudioError
    assert str(caught.value) == (
        f"{path}: found 0 samples (truncated), expected the 100 samples that its header promises"
    )


def test_neither_a_pipe_by_name_nor_a_closed_standard_input(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.wav")  # nobody writes into it: opening it would never end
    with pytest.raises(AudioError, match=r"found a pipe or a device, expected .* or - for a WAV"):
        audio.probe(tmp_path / "pipe.wav")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(AudioError, match=r"^standard input: found none, expected a WAV file$"):
        audio.probe("-")
