"""Reading and writing audio: exact scaling, lengths, and one line for every bad file."""

import io
import os
import re
import resource
import shutil
import struct
import sys
import threading

import av
import numpy as np
import pytest
import soundfile

from data_pipeline import audio, sigsep
from data_pipeline.wav import AudioError, DamagedError, read_wav, wav_info

_SUBTYPES = {
    "pcm8": "PCM_U8",
    "pcm16": "PCM_16",
    "pcm24": "PCM_24",
    "pcm32": "PCM_32",
    "float32": "FLOAT",
    "float64": "DOUBLE",
}


def _integers(bits: int, samples: int = 9_000, channels: int = 2) -> np.ndarray:
    """Whole numbers over all of the range of so many bits, both ends included."""
    full = 2 ** (bits - 1)
    x = np.random.default_rng(bits).integers(-full, full, (samples, channels))
    x[0], x[-1] = -full, full - 1
    return x


def _write_raw(path, x: np.ndarray, encoding: str) -> None:
    """A canonical WAV, written byte by byte without any audio library."""
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
    # An odd chunk with its padding byte, as editors write their notes.
    body += b"note" + struct.pack("<I", 3) + b"odd\0"
    body += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def _encode(path, x: np.ndarray, rate: int, codec: str, streams: int = 1) -> None:
    with av.open(str(path), "w") as container:
        outs = [container.add_stream(codec, rate=rate, layout="stereo") for _ in range(streams)]
        for number, out in enumerate(outs):
            planes = np.ascontiguousarray(x.T / (number + 1), np.float32)
            frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate, 0
            for source in (frame, None):
                container.mux(out.encode(source))


def _chirp(samples: int, rate: int) -> np.ndarray:
    t = np.arange(samples) / rate
    left = 0.5 * np.sin(2 * np.pi * (300 + 200 * t) * t)
    return np.stack([left, -0.5 * left], axis=1)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("encoding", ["pcm8", "pcm16", "pcm24", "pcm32"])
def test_integers_are_divided_by_full_scale_exactly(tmp_path, encoding, channels):
    bits = int(encoding[3:])
    x = _integers(bits, channels=channels)
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


@pytest.mark.parametrize("encoding", list(_SUBTYPES))
def test_both_readers_agree_with_soundfile_on_wav(tmp_path, encoding):
    path = tmp_path / "x.wav"
    x = np.random.default_rng(0).uniform(-1, 1, (5_000, 3))
    soundfile.write(path, x, 48_000, subtype=_SUBTYPES[encoding])
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    assert wav_info(path).encoding == encoding
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
    x = _integers(24)
    soundfile.write(path, (x << 8).astype(np.int32), 44_100, subtype="PCM_24", format=kind)
    assert wav_info(path).encoding == "pcm24"
    np.testing.assert_array_equal(read_wav(path), (x / 2**23).astype(np.float32))


@pytest.mark.parametrize(("name", "subtype"), [("x.flac", "PCM_16"), ("x.flac", "PCM_24")])
def test_flac_is_exact(tmp_path, name, subtype):
    bits = int(subtype[4:])
    x = _integers(bits, 30_000)
    soundfile.write(tmp_path / name, (x << (32 - bits)).astype(np.int32), 44_100, subtype=subtype)
    found, _ = audio.read(tmp_path / name)
    np.testing.assert_array_equal(found, (x / 2.0 ** (bits - 1)).astype(np.float32))


# The shorter ones fit one page of Ogg, whose end FFmpeg's libraries get wrong, either way.
@pytest.mark.parametrize("samples", [200, 1_000, 10_000, 100_001])
@pytest.mark.parametrize("sound", ["chirp", "noise", "silence"])
@pytest.mark.parametrize("ending", ["ogg", "mp3"])
def test_lossy_files_decode_as_soundfile_decodes_them(tmp_path, ending, sound, samples):
    path = tmp_path / f"x.{ending}"
    x = {
        "chirp": _chirp(samples, 44_100),
        "noise": np.random.default_rng(0).normal(scale=0.1, size=(samples, 2)),
        "silence": np.zeros((samples, 2)),
    }[sound]
    soundfile.write(path, x, 44_100)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    found, rate = audio.read(path)
    assert rate == 44_100
    assert found.shape == expected.shape == (samples, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("channels", [6, 7, 8])
def test_lossy_files_of_many_channels(tmp_path, channels):
    path = tmp_path / "x.ogg"
    # Levels apart, since FFmpeg's libraries and libsndfile order the channels differently.
    levels = 0.4 / 2.0 ** np.arange(channels)
    x = np.random.default_rng(0).uniform(-1, 1, (20_000, channels)) * levels
    soundfile.write(path, x, 48_000)
    expected, _ = soundfile.read(path, dtype="float32")
    found, _ = audio.read(path)
    assert found.shape == (20_000, channels)
    orders = [np.argsort(samples.std(axis=0)) for samples in (found, expected)]
    np.testing.assert_allclose(found[:, orders[0]], expected[:, orders[1]], atol=1e-5)


def test_m4a_keeps_place_and_length(tmp_path):
    path = tmp_path / "x.m4a"
    x = _chirp(44_100, 44_100)
    _encode(path, x, 44_100, "aac")
    found, _ = audio.read(path)
    assert len(found) == 44_100  # neither the coder's delay nor its padding
    spectra = np.fft.rfft(found[:, 0], 2 * len(x)), np.fft.rfft(x[:, 0], 2 * len(x))
    assert np.fft.irfft(spectra[0] * spectra[1].conj()).argmax() == 0


def test_streams_are_told_apart(tmp_path):
    path = tmp_path / "x.stem.mp4"
    _encode(path, _chirp(22_050, 44_100), 44_100, "aac", streams=3)
    assert audio.probe(path) == audio.AudioInfo(44_100, 2, 3, 0.5, 0.5)
    levels = [np.abs(audio.read(path, stream)[0]).max() for stream in range(3)]
    np.testing.assert_allclose(levels[0] / np.array(levels), [1, 2, 3], rtol=0.1)
    with pytest.raises(AudioError, match=r"x\.stem\.mp4: found 3 audio streams, expected at leas"):
        audio.read(path, 3)


def test_musdb_excerpt():
    path = sigsep.load("stempeg").example_stem_path()
    assert audio.probe(path) == audio.AudioInfo(44_100, 2, 5, 268_288 / 44_100, 268_288 / 44_100)
    with audio.recording(path, 4) as (_, blocks):
        pieces = list(blocks)
    assert len(pieces) > 100  # piece by piece
    assert all(piece.dtype == np.float32 for piece in pieces)
    assert sum(len(piece) for piece in pieces) == 268_288


@pytest.mark.parametrize(("encoding", "bits"), [("pcm16", 16), ("pcm24", 24)])
def test_written_integers_come_back(tmp_path, encoding, bits):
    path = tmp_path / "made" / "x.wav"
    x = (_integers(bits) / 2.0 ** (bits - 1)).astype(np.float32)
    audio.write_wav(path, x, 32_000, encoding)
    assert wav_info(path).encoding == encoding
    assert wav_info(path).sample_rate == 32_000
    np.testing.assert_array_equal(read_wav(path), x)
    assert os.listdir(path.parent) == ["x.wav"]


def test_16_bit_rounds_half_to_even_and_clips(tmp_path):
    path = tmp_path / "x.wav"
    given = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.4999, 40_000, -40_000, 32_767.4]) / 32_768
    audio.write_wav(path, given[:, None], 44_100)
    found = read_wav(path)[:, 0] * 32_768
    assert found.tolist() == [0, 2, 2, 0, -2, 0, 32_767, -32_768, 32_767]


def test_float_is_written_as_it_is(tmp_path):
    x = np.array([[1.7, -3.0], [1e-9, 0.1]], np.float32)
    audio.write_wav(tmp_path / "x.wav", x, 44_100, "float32")
    np.testing.assert_array_equal(read_wav(tmp_path / "x.wav"), x)


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.wav"
    audio.write_wav(path, np.zeros((10, 1)), 44_100)
    before = path.read_bytes()
    with pytest.raises(AudioError, match=r"x\.wav: found NaN or infinite samples"):
        audio.write_wav(path, np.array([[np.nan]]), 44_100)

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", full_disk)
    with pytest.raises(AudioError, match=r"x\.wav: cannot be written \(.*No space left"):
        audio.write_wav(path, np.ones((10, 1)), 44_100)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.wav"]


def test_writing_in_blocks_is_writing_at_once(tmp_path):
    x = np.random.default_rng(0).uniform(-1, 1, (1_000, 2))
    for encoding in ("pcm16", "pcm24", "float32"):
        audio.write_wav(tmp_path / "once.wav", x, 44_100, encoding)
        with audio.audio_writer(tmp_path / "blocks.wav", 44_100, 2, encoding) as write:
            write(x[:300])
            assert os.listdir(tmp_path).count("blocks.wav") == 0
            write(x[300:])
        expected = read_wav(tmp_path / "once.wav")
        np.testing.assert_array_equal(read_wav(tmp_path / "blocks.wav"), expected)
        os.remove(tmp_path / "blocks.wav")


@pytest.mark.parametrize(
    ("samples", "rates", "length"),
    [(48_000, (48_000, 44_100), 44_100), (1_001, (44_100, 16_000), 363), (1, (8_000, 44_100), 6)],
)
def test_resampled_length(samples, rates, length):
    assert audio.resample(np.ones((samples, 2), np.float32), *rates).shape == (length, 2)


def test_resampling_keeps_a_sine():
    t = np.arange(48_000) / 48_000
    x = np.sin(2 * np.pi * 1_000 * t).astype(np.float32)[:, None]
    found = audio.resample(x, 48_000, 44_100)
    expected = np.sin(2 * np.pi * 1_000 * np.arange(44_100) / 44_100)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[2_000:-2_000, 0], expected[2_000:-2_000], atol=1e-5)
    assert audio.resample(x, 44_100, 44_100) is x


def _bad_wavs(tmp_path):
    whole = tmp_path / "whole.wav"
    _write_raw(whole, _integers(16, 100), "pcm16")
    data = whole.read_bytes()
    alaw = tmp_path / "alaw.wav"
    soundfile.write(alaw, np.zeros(100), 8_000, subtype="ALAW")
    return {
        "empty.wav": (b"", "found an empty file (0 bytes), expected a WAV file"),
        "text.wav": (b"not audio at all", "found no WAV header, expected a WAV file"),
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
            "found WAV format 6 with 8 bits, 1 channels and 8000 Hz, expected one of pcm8, pcm16,"
            " pcm24, pcm32, float32, float64",
        ),
    }


@pytest.mark.parametrize(
    "name", ["empty.wav", "text.wav", "cut.wav", "header.wav", "headless.wav", "alaw.wav"]
)
def test_bad_wav(tmp_path, name):
    data, message = _bad_wavs(tmp_path)[name]
    path = tmp_path / name
    path.write_bytes(data)
    readers = [wav_info, read_wav]
    if name != "alaw.wav":  # which FFmpeg's libraries know
        readers += [audio.read, audio.probe]
    for reader in readers:
        with pytest.raises(AudioError) as caught:
            reader(path)
        # FFmpeg's readers expect audio of any kind.
        assert str(caught.value).replace("an audio file", "a WAV file") == f"{path}: {message}"


def test_wav_that_only_ffmpegs_libraries_know(tmp_path):
    path = tmp_path / "alaw.wav"
    soundfile.write(path, 0.5 * np.sin(np.arange(1000) / 9), 8_000, subtype="ALAW")
    truth, _ = soundfile.read(path, dtype="float32", always_2d=True)
    samples, rate = audio.read(path)
    assert rate == 8_000
    np.testing.assert_array_equal(samples, truth)


def test_wav_of_a_stream_that_did_not_know_its_length(tmp_path):
    path = tmp_path / "piped.wav"
    audio.write_wav(path, np.linspace(-0.5, 0.5, 100)[:, None], 44_100)
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
    audio.write_wav(path, np.zeros((10, 1)), 44_100)
    path.chmod(0)
    for reader in (wav_info, audio.probe):
        with pytest.raises(AudioError, match=r"x\.wav: cannot be read \(Permission denied\)"):
            reader(path)


def test_tags_in_an_unknown_code_page(tmp_path):
    path = tmp_path / "x.wav"
    audio.write_wav(path, np.ones((100, 1)) / 2, 44_100)
    tag = b"INFOINAM" + struct.pack("<I", 4) + b"\xfc\xff\xe9\0"
    data = path.read_bytes()
    path.write_bytes(data[:12] + b"LIST" + struct.pack("<I", len(tag)) + tag + data[12:])
    assert audio.read(path)[0].shape == (100, 1)


def test_wav_that_shrinks_after_its_header_was_read(tmp_path):
    path = tmp_path / "x.wav"
    audio.write_wav(path, np.zeros((100, 1)), 44_100)
    info = wav_info(path)
    os.truncate(path, 100)
    with pytest.raises(AudioError, match=r"x\.wav: found a file that got shorter while in use"):
        read_wav(info)


def test_files_without_audio(tmp_path):
    noise = tmp_path / "noise.mp3"
    noise.write_bytes(np.random.default_rng(0).bytes(20_000))
    with pytest.raises(AudioError, match=r"noise\.mp3: found no readable audio \(Invalid data"):
        audio.probe(noise)
    picture = tmp_path / "picture.m4a"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    for reader in (audio.probe, audio.read):
        with pytest.raises(AudioError) as caught:
            reader(picture)
        assert str(caught.value) == f"{picture}: found 0 audio streams, expected at least 1"


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp4"])
def test_damage_in_the_middle_is_found(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    x = np.random.default_rng(0).normal(scale=0.1, size=(3 * 44_100, 2))
    if ending == "mp4":
        _encode(path, x, 44_100, "aac")
    else:
        soundfile.write(path, x, 44_100)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 5] = bytes(len(data) // 5)
    path.write_bytes(data)
    assert audio.probe(path).seconds == pytest.approx(3, abs=0.01)  # its header knows nothing of it
    with pytest.raises(AudioError) as caught:
        audio.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: found ")
    assert "audio that cannot be decoded after" in message or "(truncated or damaged)" in message


def test_mp4_that_was_cut_short_is_found(tmp_path):
    path = tmp_path / "cut.stem.mp4"
    with open(sigsep.load("stempeg").example_stem_path(), "rb") as file:
        data = file.read()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError) as caught:
        audio.read(path)
    assert "s of audio (truncated or damaged), expected the 6.1 s that its header" in str(
        caught.value
    )


def _salvage(path, stream: int = 0) -> tuple[audio.AudioInfo, np.ndarray, str]:
    """All that a damaged file gives, and what is said of it in the end ("" if all is well)."""
    blocks, message = [], ""
    with audio.recording(path, stream, salvage=True) as (info, given):
        try:
            blocks.extend(given)
        except DamagedError as error:
            message = str(error)
    assert "\n" not in message
    return info, np.concatenate(blocks), message


def _wav_bytes(x: np.ndarray, length: int | None = None, riff: int | None = None) -> bytes:
    """16-bit WAV at 8000 Hz whose header counts `length` bytes of samples."""
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
    """Puts a pipe with the given bytes in the place of standard input."""
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
        while not file.closed and file.read(2**16):  # so that the thread comes to its end
            pass
        thread.join()


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_recording_at_all_rates(tmp_path, rate, channels):
    for ending in ("wav", "flac"):
        path = tmp_path / f"Café del Mär 音 {channels}.{ending}"
        x = _integers(16, 5_000, channels)
        soundfile.write(path, x.astype(np.int16), rate)
        info, found, message = _salvage(path)
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
    x = _integers(16, 100_000, 1)
    path.write_bytes(_wav_bytes(x))
    with audio.recording(path) as (_, blocks):
        lengths = [len(block) for block in blocks]
    assert sum(lengths) == 100_000
    assert max(lengths) == 2**14
    with pytest.raises(AudioError, match=r"x\.wav: found 1 audio streams, expected at least 3"):
        audio.read(path, 2)


@pytest.mark.parametrize(
    ("length", "known"),
    [(None, True), (0, False), (2**32 - 1, False), (2**31 - 4096, False), (2**31, False)],
)
def test_standard_input(pipe, length, known):
    x = _integers(16, 50_000, 1)
    data = _wav_bytes(x, length, None if known else 2**32 - 1)
    pipe(data + (b"LIST\2\0\0\0no" if known else b""))
    info, found, message = _salvage("-")
    assert info == audio.AudioInfo(8_000, 1, 1, *[6.25 if known else None] * 2)
    assert message == ""
    np.testing.assert_array_equal(found, (x / 2**15).astype(np.float32))


def test_long_header_on_standard_input(tmp_path, pipe):
    path = tmp_path / "x.rf64"
    x = _integers(16)
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
    x = _integers(16, 40_000, 1)
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
    info, found, message = _salvage("-")
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
    x = _integers(16, 80_000, 2)
    path.write_bytes(_wav_bytes(x)[: 44 + 4 * held + 3])
    info, found, message = _salvage(path)
    assert info == audio.AudioInfo(8_000, 2, 1, 10, 10)
    np.testing.assert_array_equal(found, (x[:held] / 2**15).astype(np.float32))
    assert message == (
        f"{path}: found {held / 8_000:.2f} s of audio (truncated or damaged),"
        f" {10 - held / 8_000:.2f} s of the 10.00 s that its header promises are missing"
    )
    with pytest.raises(
        AudioError, match=rf"cut\.wav: found {held} samples \(truncated\), expected"
    ):
        audio.read(path)


def test_wav_without_any_sample_is_not_salvaged(tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(_wav_bytes(np.zeros((100, 1)))[:45])
    with pytest.raises(AudioError) as caught:
        _salvage(path)
    assert type(caught.value) is AudioError
    assert str(caught.value) == (
        f"{path}: found 0 samples (truncated), expected the 100 samples that its header promises"
    )


def _flac(path, samples: int) -> tuple[np.ndarray, bytes]:
    """Noise in a FLAC file whose frames have 4096 samples; no run of them is silent."""
    x = _integers(16, samples)
    soundfile.write(path, x.astype(np.int16), 44_100)
    return (x / 2**15).astype(np.float32), path.read_bytes()


# One flipped byte costs a single FLAC frame: shorter than what lossy files may lack at their end.
@pytest.mark.parametrize("damage", [1, 5_000, 60_000])
@pytest.mark.parametrize("place", [0.03, 0.5, 0.8])
def test_damaged_flac_is_salvaged_in_place(tmp_path, damage, place):
    path = tmp_path / "x.flac"
    x, data = _flac(path, 100 * 4_096 + 77)
    start = int(place * len(data))
    noise = bytes(byte ^ 0x5A for byte in data[start : start + damage])
    path.write_bytes(data[:start] + noise + data[start + damage :])
    info, found, message = _salvage(path)
    assert info.seconds == len(x) / 44_100
    assert found.shape == x.shape
    # Whole frames are lost, those that the damage touches and one beside it at most.
    lost = np.flatnonzero([(found[i : i + 4_096] == 0).all() for i in range(0, len(x), 4_096)])
    assert lost.tolist() == list(range(lost[0], lost[-1] + 1))
    assert 1 <= len(lost) <= 2 + np.ceil(damage / (len(data) / 100))
    assert lost[0] <= place * 100 + 1
    assert lost[-1] >= place * 100 - 1
    kept = np.ones(len(x), bool)
    kept[lost[0] * 4_096 : (lost[-1] + 1) * 4_096] = False
    np.testing.assert_array_equal(found[kept], x[kept])
    silent, start = len(lost) * 4_096 / 44_100, lost[0] * 4_096 / 44_100
    assert message == (
        f"{path}: found {len(x) / 44_100:.2f} s of audio (damaged), {silent:.2f} s of it, from"
        f" {start:.2f} s on, cannot be decoded and are silent"
    )
    with pytest.raises(AudioError, match=r"x\.flac: found ") as caught:
        audio.read(path)
    assert not isinstance(caught.value, DamagedError)


def test_flac_that_is_damaged_at_its_start_keeps_its_place(tmp_path):
    path = tmp_path / "x.flac"
    x, data = _flac(path, 50 * 4_096)
    path.write_bytes(data[:9_000] + bytes(9_000) + data[18_000:])
    _, found, message = _salvage(path)
    assert found.shape == x.shape
    np.testing.assert_array_equal(found[3 * 4_096 :], x[3 * 4_096 :])
    assert "s of it, from 0.00 s on, cannot be decoded and are silent" in message


def test_truncated_flac_is_salvaged(tmp_path):
    path = tmp_path / "x.flac"
    x, data = _flac(path, 10 * 44_100)
    path.write_bytes(data[: len(data) // 2])
    _, found, message = _salvage(path)
    assert 4.8 < len(found) / 44_100 < 5
    np.testing.assert_array_equal(found, x[: len(found)])
    held = len(found) / 44_100
    assert message == (
        f"{path}: found {held:.2f} s of audio (truncated or damaged), {10 - held:.2f} s of the"
        " 10.00 s that its header promises are missing"
    )


def test_truncated_ogg_is_salvaged(tmp_path):
    path = tmp_path / "x.ogg"
    soundfile.write(path, np.random.default_rng(0).normal(scale=0.1, size=(441_000, 2)), 44_100)
    whole, _ = audio.read(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    _, found, message = _salvage(path)
    assert 4.5 < len(found) / 44_100 < 5.1
    np.testing.assert_allclose(found, whole[: len(found)], atol=1e-6)
    assert message == ""  # an Ogg file says nowhere how long it was


@pytest.mark.parametrize("ending", ["ogg", "opus", "m4a"])
def test_damaged_lossy_file_is_salvaged_in_place(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    x = np.random.default_rng(0).normal(scale=0.1, size=(480_000, 2))
    if ending == "m4a":
        _encode(path, x, 48_000, "aac")
    elif ending == "opus":
        soundfile.write(path, x, 48_000, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, x, 48_000)
    whole, _ = audio.read(path)
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(15_000) + data[middle + 15_000 :])
    _, found, message = _salvage(path)
    assert found.shape == whole.shape
    silent = np.flatnonzero((found == 0).all(axis=1))
    assert len(silent) == silent[-1] - silent[0] + 1 > 10_000
    for part in (slice(180_000), slice(-120_000, None)):
        # Not all of AAC's noise: its decoder makes some of it, another one each time.
        assert (np.abs(found[part] - whole[part]) > 1e-6).mean() < (
            0.05 if ending == "m4a" else 1e-9
        )
    held, lost, start = re.fullmatch(
        r".*: found (.*) s of audio \(damaged\), (.*) s of it, from (.*) s on, cannot be decoded"
        " and are silent",
        message,
    ).groups()
    assert float(held) == pytest.approx(len(whole) / 48_000, abs=0.006)
    assert float(lost) == pytest.approx(len(silent) / 48_000, abs=0.006)
    assert float(start) == pytest.approx(silent[0] / 48_000, abs=0.03)


def test_damaged_mp3_goes_on(tmp_path):
    path = tmp_path / "x.mp3"
    soundfile.write(path, np.random.default_rng(0).normal(scale=0.1, size=(441_000, 2)), 44_100)
    whole, _ = audio.read(path)
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(20_000) + data[middle + 20_000 :])
    _, found, message = _salvage(path)
    np.testing.assert_allclose(found[:200_000], whole[:200_000], atol=1e-6)
    # Nothing tells how much is lost: what follows comes whole, but earlier.
    spectra = [np.fft.rfft(x[-100_000:, 0], 2**18) for x in (whole, found)]
    peak = np.fft.irfft(spectra[0].conj() * spectra[1])
    assert peak.max() > 0.9 * (whole[-100_000:, 0] ** 2).sum()
    assert re.search(
        r"found 8\.\d\d s of audio \(damaged\), 0\.\d\d s of it, from 4\.99 s", message
    )


def test_whole_files_need_no_salvage(tmp_path):
    stems = sigsep.load("stempeg").example_stem_path()
    _, found, message = _salvage(stems, 3)
    np.testing.assert_array_equal(found, audio.read(stems, 3)[0])
    assert message == ""
    x = np.random.default_rng(0).normal(scale=1e-3, size=(30_000, 1))
    x[::5_000] = 0.9  # so that coders change their block size
    for ending in ("ogg", "opus", "mp3", "flac", "aiff", "caf", "au", "mka", "aac"):
        path = tmp_path / f"x.{ending}"
        if ending in ("mka", "aac"):
            _encode(path, np.tile(x, 2), 48_000, "aac")
        else:
            kind = {"opus": {"format": "OGG", "subtype": "OPUS"}}.get(ending, {})
            soundfile.write(path, x, 48_000, **kind)
        _, found, message = _salvage(path)
        assert message == ""
        np.testing.assert_array_equal(found, audio.read(path)[0])


@pytest.mark.parametrize("salvage", [False, True])
def test_change_of_format_in_mid_file(tmp_path, salvage):
    path = tmp_path / "x.mp3"
    soundfile.write(path, _chirp(88_200, 44_100), 44_100)
    first = path.read_bytes()
    soundfile.write(path, _chirp(44_100, 22_050), 22_050)
    path.write_bytes(first + path.read_bytes())
    given = []
    with (
        pytest.raises(DamagedError if salvage else AudioError) as caught,
        audio.recording(path, salvage=salvage) as (info, blocks),
    ):
        given.extend(blocks)
    assert (info.sample_rate, info.channels) == (44_100, 2)
    assert sum(map(len, given)) == pytest.approx(88_200, abs=3_000)
    assert isinstance(caught.value, DamagedError) == salvage
    assert re.fullmatch(
        r".*x\.mp3: found 22050 Hz and 2 channels after 2\.\d s, expected 44100 Hz and 2 channels"
        " as at the start",
        str(caught.value),
    )


@pytest.mark.parametrize("seed", [0, 4, 22])  # AAC decodes one frame of the latter two
@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "ogg", "m4a", "aac"])
def test_random_bytes_are_not_audio(tmp_path, ending, seed):
    path = tmp_path / f"noise.{ending}"
    path.write_bytes(np.random.default_rng(seed).bytes(1_000_000))
    with pytest.raises(AudioError, match=rf"noise\.{ending}: found ") as caught:
        _salvage(path)
    assert type(caught.value) is AudioError
    with pytest.raises(AudioError, match=rf"noise\.{ending}: found "):
        audio.read(path)


@pytest.mark.parametrize(("encoding", "bits"), [("pcm16", 16), ("pcm24", 24)])
def test_written_flac_comes_back(tmp_path, encoding, bits):
    path = tmp_path / "made" / "x.FLAC"
    x = (_integers(bits, channels=8) / 2.0 ** (bits - 1)).astype(np.float32)
    with audio.audio_writer(path, 32_000, 8, encoding) as write:
        write(x[:5_000])
        write(x[5_000:])
    info = soundfile.info(path)
    assert (info.format, info.subtype) == ("FLAC", f"PCM_{bits}" if bits == 24 else "PCM_16")
    np.testing.assert_array_equal(audio.read(path)[0], x)
    assert os.listdir(path.parent) == ["x.FLAC"]


def test_flac_rounds_and_clips_as_wav_does(tmp_path):
    given = np.array([[0.5, 1.5, 2.5, -0.5, 40_000, -40_000]]).T / 32_768
    with audio.audio_writer(tmp_path / "x.flac", 44_100, 1) as write:
        write(given)
    found = audio.read(tmp_path / "x.flac")[0][:, 0] * 32_768
    assert found.tolist() == [0, 2, 2, 0, 32_767, -32_768]


@pytest.mark.parametrize(
    ("channels", "encoding", "message"),
    [
        (2, "float32", "found float32 samples for a FLAC file, expected pcm16 or pcm24"),
        (9, "pcm16", "found 9 channels for a FLAC file, expected at most 8"),
    ],
)
def test_what_flac_cannot_hold(tmp_path, channels, encoding, message):
    path = tmp_path / "x.flac"
    with (
        pytest.raises(AudioError) as caught,
        audio.audio_writer(path, 44_100, channels, encoding),
    ):
        pass
    assert str(caught.value) == f"{path}: {message}"
    assert os.listdir(tmp_path) == []


@pytest.fixture
def largest_file():
    """Limits the size of files, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("ending", ["wav", "flac"])
@pytest.mark.parametrize("encoding", ["pcm16", "pcm24"])
def test_files_that_cannot_be_written_whole(tmp_path, largest_file, ending, encoding):
    path = tmp_path / f"x.{ending}"
    x = np.random.default_rng(0).uniform(-1, 1, (6_000, 2))

    def put():
        with audio.audio_writer(path, 44_100, 2, encoding) as write:
            write(x[:5_000])
            write(x[5_000:])

    put()
    size = path.stat().st_size
    os.remove(path)
    # The last bytes, which may be written when the file is closed, count as the first do.
    for limit in (10, 4_096, size // 2, size - 3_000, size - 100, size - 1):
        largest_file(limit)
        with pytest.raises(AudioError) as caught:
            put()
        assert str(caught.value).startswith(f"{path}: cannot be written (")
        assert os.listdir(tmp_path) == []
    largest_file(size)
    put()
    assert soundfile.info(path).frames == 6_000


def test_full_disk_is_called_so(tmp_path, largest_file, monkeypatch):
    path = tmp_path / "x.wav"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    largest_file(1_000)
    with pytest.raises(AudioError) as caught:
        audio.write_wav(path, np.zeros((6_000, 2)), 44_100)
    assert str(caught.value) == f"{path}: cannot be written (no space left)"


def test_recordings_in_a_folder(tmp_path):
    for name in (
        "b song.MP3",
        "a.wav",
        "ä.flac",
        ".hidden.wav",
        "cover.jpg",
        "notes",
        "c.stem.mp4",
    ):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "folder.wav" / "inner.wav").write_bytes(b"")
    names = ["a.wav", "b song.MP3", "c.stem.mp4", "ä.flac"]
    assert audio.recordings_in(tmp_path) == [str(tmp_path / name) for name in names]
    assert all(ending == ending.lower() and ending[0] == "." for ending in audio.AUDIO_ENDINGS)


def test_folders_without_recordings(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"")
    for folder, message in {
        tmp_path: "found no audio files, expected files that end in .wav, .flac, .mp3 or the like",
        tmp_path / "no": "found no such folder, expected a folder of audio files",
        tmp_path / "x.txt": "cannot be read (Not a directory), expected a folder of audio files",
    }.items():
        with pytest.raises(AudioError) as caught:
            audio.recordings_in(folder)
        assert str(caught.value) == f"{folder}: {message}"


@pytest.mark.parametrize("encoding", ["float32", "pcm24", "pcm16"])
@pytest.mark.parametrize("samples", [1, 2, 3, 1000])
def test_wav_of_unknown_length_is_a_plain_one_that_all_programs_read(tmp_path, encoding, samples):
    path = tmp_path / "a.wav"
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (samples, 2)).astype(np.float32)
    with audio.audio_writer(path, 44_100, 2, encoding, None) as write:
        write(x[:1])
        write(x[1:])
    content = path.read_bytes()
    assert content[:4] == b"RIFF"
    assert struct.unpack("<I", content[4:8])[0] == len(content) - 8
    assert soundfile.info(path).frames == wav_info(path).frames == samples
    np.testing.assert_allclose(read_wav(path), x, rtol=0, atol=2e-5)
    np.testing.assert_allclose(soundfile.read(path)[0], x, rtol=0, atol=2e-5)


@pytest.mark.parametrize("ending", [".aiff", ".au"])
def test_cut_aiff_and_au_are_told(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    soundfile.write(path, np.zeros((50_000, 2)), 44_100)
    path.write_bytes(path.read_bytes()[:120_000])
    with audio.recording(path, salvage=True) as (_, blocks), pytest.raises(DamagedError) as caught:
        list(blocks)
    assert "that its header promises are missing" in str(caught.value)


def test_neither_a_pipe_by_name_nor_a_closed_standard_input(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.wav")
    descriptor = os.open(tmp_path / "pipe.wav", os.O_RDWR)
    with pytest.raises(AudioError, match=r"found a pipe or a device, expected .* or - for a WAV"):
        audio.probe(tmp_path / "pipe.wav")
    os.close(descriptor)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(AudioError, match=r"^standard input: found none, expected a WAV file$"):
        audio.probe("-")
