"""Reading and writing audio: exact scaling, lengths, and one line for every bad file."""

import os
import struct

import av
import numpy as np
import pytest
import soundfile

from data_pipeline import audio, sigsep
from data_pipeline.audio import AudioError

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
    info = audio.wav_info(path)
    assert (info.encoding, info.channels, info.frames) == (encoding, channels, len(x))
    assert (info.sample_rate, info.data_offset, info.path) == (8000, 56, str(path))
    assert info.seconds == len(x) / 8000
    assert info.frame_bytes == channels * bits // 8
    expected = (x / 2.0 ** (bits - 1)).astype(np.float32)
    for found in (audio.read_wav(info), audio.read(path)[0]):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("encoding", list(_SUBTYPES))
def test_both_readers_agree_with_soundfile_on_wav(tmp_path, encoding):
    path = tmp_path / "x.wav"
    x = np.random.default_rng(0).uniform(-1, 1, (5_000, 3))
    soundfile.write(path, x, 48_000, subtype=_SUBTYPES[encoding])
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    assert audio.wav_info(path).encoding == encoding
    np.testing.assert_array_equal(audio.read_wav(path), expected)
    found, rate = audio.read(path)
    assert rate == 48_000
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(audio.read_wav(path, 17, 100), expected[17:117])
    np.testing.assert_array_equal(audio.read_wav(path, 4_990, 100), expected[4_990:])
    assert audio.read_wav(path, 6_000).shape == (0, 3)


@pytest.mark.parametrize("kind", ["WAVEX", "RF64"])
def test_other_wav_headers(tmp_path, kind):
    path = tmp_path / "x.wav"
    x = _integers(24)
    soundfile.write(path, (x << 8).astype(np.int32), 44_100, subtype="PCM_24", format=kind)
    assert audio.wav_info(path).encoding == "pcm24"
    np.testing.assert_array_equal(audio.read_wav(path), (x / 2**23).astype(np.float32))


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
    assert audio.probe(path) == audio.AudioInfo(44_100, 2, 3, 0.5)
    levels = [np.abs(audio.read(path, stream)[0]).max() for stream in range(3)]
    np.testing.assert_allclose(levels[0] / np.array(levels), [1, 2, 3], rtol=0.1)
    with pytest.raises(AudioError, match=r"x\.stem\.mp4: found 3 audio streams, expected at leas"):
        audio.read(path, 3)


def test_musdb_excerpt():
    path = sigsep.load("stempeg").example_stem_path()
    assert audio.probe(path) == audio.AudioInfo(44_100, 2, 5, 268_288 / 44_100)
    pieces = list(audio.decode(path, 4))
    assert len(pieces) > 100  # piece by piece
    assert all(piece.dtype == np.float32 for piece in pieces)
    assert sum(len(piece) for piece in pieces) == 268_288


@pytest.mark.parametrize(("encoding", "bits"), [("pcm16", 16), ("pcm24", 24)])
def test_written_integers_come_back(tmp_path, encoding, bits):
    path = tmp_path / "made" / "x.wav"
    x = (_integers(bits) / 2.0 ** (bits - 1)).astype(np.float32)
    audio.write_wav(path, x, 32_000, encoding)
    assert audio.wav_info(path).encoding == encoding
    assert audio.wav_info(path).sample_rate == 32_000
    np.testing.assert_array_equal(audio.read_wav(path), x)
    assert os.listdir(path.parent) == ["x.wav"]


def test_16_bit_rounds_half_to_even_and_clips(tmp_path):
    path = tmp_path / "x.wav"
    given = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.4999, 40_000, -40_000, 32_767.4]) / 32_768
    audio.write_wav(path, given[:, None], 44_100)
    found = audio.read_wav(path)[:, 0] * 32_768
    assert found.tolist() == [0, 2, 2, 0, -2, 0, 32_767, -32_768, 32_767]


def test_float_is_written_as_it_is(tmp_path):
    x = np.array([[1.7, -3.0], [1e-9, 0.1]], np.float32)
    audio.write_wav(tmp_path / "x.wav", x, 44_100, "float32")
    np.testing.assert_array_equal(audio.read_wav(tmp_path / "x.wav"), x)


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
        with audio.wav_writer(tmp_path / "blocks.wav", 44_100, 2, encoding) as write:
            write(x[:300])
            assert os.listdir(tmp_path).count("blocks.wav") == 0
            write(x[300:])
        expected = audio.read_wav(tmp_path / "once.wav")
        np.testing.assert_array_equal(audio.read_wav(tmp_path / "blocks.wav"), expected)
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
    readers = [audio.wav_info, audio.read_wav]
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
    assert audio.wav_info(path).frames == 100


def test_missing_and_unreadable_files(tmp_path):
    missing = tmp_path / "missing.wav"
    with pytest.raises(AudioError) as caught:
        audio.wav_info(missing)
    assert str(caught.value) == f"{missing}: found no such file, expected a WAV file"
    with pytest.raises(AudioError) as caught:
        audio.probe(missing)
    assert str(caught.value) == f"{missing}: found no such file, expected an audio file"
    for reader in (audio.wav_info, audio.probe):
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
    for reader in (audio.wav_info, audio.probe):
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
    info = audio.wav_info(path)
    os.truncate(path, 100)
    with pytest.raises(AudioError, match=r"x\.wav: found a file that got shorter while in use"):
        audio.read_wav(info)


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
