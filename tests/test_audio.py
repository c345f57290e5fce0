"""Writing, resampling and finding audio files."""

import io
import os
import resource
import shutil
import struct

import av
import numpy as np
import pytest
import soundfile
from audio_files import integers, salvage

from data_pipeline import audio, listing
from data_pipeline.errors import AudioError
from data_pipeline.wav import read_wav, wav_info


@pytest.mark.parametrize(("encoding", "bits"), [("pcm16", 16), ("pcm24", 24)])
def test_written_integers_come_back(tmp_path, encoding, bits):
    path = tmp_path / "made" / "x.wav"
    x = (integers(bits) / 2.0 ** (bits - 1)).astype(np.float32)
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


def test_writing_in_blocks_equals_writing_at_once(tmp_path):
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


@pytest.mark.parametrize(("encoding", "bits"), [("pcm16", 16), ("pcm24", 24)])
def test_written_flac_comes_back(tmp_path, encoding, bits):
    path = tmp_path / "made" / "x.FLAC"
    x = (integers(bits, channels=8) / 2.0 ** (bits - 1)).astype(np.float32)
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


_RATES = "expected at most 65535 Hz, or a multiple of 10 Hz up to 655350 Hz"


@pytest.mark.parametrize(
    ("ending", "rate", "channels", "encoding", "message"),
    [
        ("flac", 44_100, 2, "float32", "float32 samples for a FLAC file, expected pcm16 or pcm24"),
        ("flac", 44_100, 9, "pcm16", "9 channels for a FLAC file, expected at most 8"),
        ("flac", 65_537, 2, "pcm16", f"65537 Hz for a FLAC file, {_RATES}"),
        ("flac", 705_600, 2, "pcm24", f"705600 Hz for a FLAC file, {_RATES}"),
        ("wav", 44_100, 1_025, "pcm16", "1025 channels for a WAV file, expected at most 1024"),
    ],
)
def test_what_a_format_cannot_store(tmp_path, ending, rate, channels, encoding, message):
    path = tmp_path / f"x.{ending}"
    with (
        pytest.raises(AudioError) as caught,
        audio.audio_writer(path, rate, channels, encoding),
    ):
        pass
    assert str(caught.value) == f"{path}: found {message}"
    assert os.listdir(tmp_path) == []


def test_flac_stores_every_rate_that_is_not_refused(tmp_path):
    path = tmp_path / "x.flac"
    for rate in (1, 65_535, 65_540, 655_350):
        with audio.audio_writer(path, rate, 1) as write:
            write(np.zeros((100, 1)))
        assert soundfile.info(path).samplerate == rate


def test_errors_of_libsndfile_do_not_name_the_hidden_file(tmp_path, monkeypatch):
    path = tmp_path / "x.flac"
    monkeypatch.setattr(audio, "check_format", lambda *_: "FLAC")
    with pytest.raises(AudioError) as caught, audio.audio_writer(path, 705_600, 1):
        pass
    assert str(caught.value) == (
        f"{path}: cannot be written (flac does not support this sample rate)"
    )
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AudioError) as caught:
        audio.write_wav(tmp_path / "folder.wav", np.zeros((10, 1)), 44_100)
    assert str(caught.value) == f"{tmp_path}/folder.wav: cannot be written (Is a directory)"


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
    # The last bytes may be written only when the file is closed; they count, too.
    for limit in (10, 4_096, size // 2, size - 3_000, size - 100, size - 1):
        largest_file(limit)
        with pytest.raises(AudioError) as caught:
            put()
        assert str(caught.value).startswith(f"{path}: cannot be written (")
        assert os.listdir(tmp_path) == []
    largest_file(size)
    put()
    assert soundfile.info(path).frames == 6_000


def test_full_disk_is_reported_as_such(tmp_path, largest_file, monkeypatch):
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
    (tmp_path / "link to nothing.wav").symlink_to(tmp_path / "nothing.wav")
    names = ["a.wav", "b song.MP3", "c.stem.mp4", "link to nothing.wav", "ä.flac"]
    assert listing.recordings_in(tmp_path) == [str(tmp_path / name) for name in names]
    assert all(ending == ending.lower() and ending[0] == "." for ending in listing.AUDIO_ENDINGS)


def test_folders_without_recordings(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"")
    for folder, message in {
        tmp_path: "found no audio files, expected files that end in .wav, .flac, .mp3 or the like",
        tmp_path / "no": "found no such folder, expected a folder of audio files",
        tmp_path / "x.txt": "cannot be read (Not a directory), expected a folder of audio files",
    }.items():
        with pytest.raises(AudioError) as caught:
            listing.recordings_in(folder)
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


def _m4a() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(_SINE.T.copy(), format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def _written(kind: str, endian: str = "FILE") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, _SINE, 44_100, format=kind, endian=endian)
    return file.getvalue()


def _in_riff(mp3: bytes) -> bytes:
    size = struct.pack("<I", len(mp3))
    return b"RIFF" + struct.pack("<I", len(mp3) + 12) + b"RMP3data" + size + mp3


def _format_behind(wav: bytes) -> bytes:
    """Moves the format chunk behind the samples."""
    start = wav.index(b"fmt ")
    end = start + 8 + struct.unpack("<I", wav[start + 4 : start + 8])[0]
    return wav[:start] + wav[end:] + wav[start:end]


_SINE = 0.5 * np.sin(np.arange(9_000, dtype=np.float32) / 20)[:, None]
_CONTENTS = {
    "flac": lambda: _written("FLAC"),
    "ogg": lambda: _written("OGG"),
    "mp3": lambda: _written("MP3"),
    "m4a": _m4a,
    "aiff": lambda: _written("AIFF"),
    "caf": lambda: _written("CAF"),
    "w64": lambda: _written("W64"),
    "rifx": lambda: _written("WAV", "BIG"),
    "rmp3": lambda: _in_riff(_written("MP3")),
    "wav": lambda: _written("WAV"),
    "wav with its format behind": lambda: _format_behind(_written("WAV")),
}


@pytest.mark.parametrize("kind", _CONTENTS)
def test_content_decides_in_files_of_any_name(tmp_path, kind):
    content = _CONTENTS[kind]()
    # FFmpeg's libraries take names in UTF-8 only.
    for name in (b"x.wav", b"x.mp3", b"x", b"lat\xe9.wav", b"lat\xe9/x.flac"):
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        _, found, message = salvage(path)
        assert message == ""
        assert 9_000 <= len(found) < 9_000 + 3 * 1_152
        if len(found) == 9_000:  # else a coder's delay and padding
            np.testing.assert_allclose(found[100:-100], _SINE[100:-100], atol=0.02)
        np.testing.assert_array_equal(audio.read(path)[0], found)


@pytest.mark.parametrize("ending", audio.WRITABLE)
def test_names_that_are_not_utf8_are_written(tmp_path, ending):
    folder = tmp_path / os.fsdecode(b"lat\xe9")
    audio.write_wav(folder / os.fsdecode(b"\xff" + ending.encode()), _SINE, 44_100)
    assert os.listdir(os.fsencode(folder)) == [b"\xff" + ending.encode()]
    found, _ = audio.read(folder / os.listdir(folder)[0])
    np.testing.assert_allclose(found, _SINE, atol=2e-5)


@pytest.mark.parametrize(
    ("subtype", "samples"),
    [("ULAW", 4_000), ("ALAW", 4_000), ("IMA_ADPCM", 15 * 505), ("GSM610", 27 * 320)],
)
def test_compressed_samples_in_wav(tmp_path, subtype, samples):
    path = tmp_path / "x.wav"
    soundfile.write(path, _SINE[:samples], 8_000, subtype=subtype)
    _, truth, message = salvage(path)
    assert message == ""
    data = path.read_bytes()
    at, fact = data.index(b"data") + 8, data.find(b"fact") + 8
    stated = struct.unpack_from("<I", data, at - 4)[0]
    # SoX counts the byte that pads GSM to an even length, and others write into a pipe.
    for length, count in ((stated + stated % 2, None), (0x7FFFF000, 0x7FFFF000), (0, 0)):
        changed = bytearray(data + b"\0" * ((len(data) - at - stated) % 2))
        struct.pack_into("<I", changed, at - 4, length)
        if count is not None and fact > 8:
            struct.pack_into("<I", changed, fact, count)
        path.write_bytes(changed)
        _, found, message = salvage(path)
        assert message == ""
        np.testing.assert_array_equal(found, truth)
    path.write_bytes(data[: at + stated // 2])
    _, found, message = salvage(path)
    assert "truncated or damaged" in message
    np.testing.assert_array_equal(found, truth[: len(found)])


@pytest.mark.parametrize(
    ("ending", "rate", "channels", "message"),
    [
        ("wav", 1, 1, "a sample rate of 1 Hz, expected 1000 to 10000000 Hz"),
        ("wav", 2**31 - 1, 1, "a sample rate of 2147483647 Hz, expected 1000 to 10000000 Hz"),
        ("aiff", 999, 1, "a sample rate of 999 Hz, expected 1000 to 10000000 Hz"),
        ("wav", 44_100, 129, "129 channels, expected at most 128"),
    ],
)
def test_what_only_a_damaged_header_says_is_refused(tmp_path, ending, rate, channels, message):
    path = tmp_path / f"x.{ending}"
    soundfile.write(path, np.zeros((100, channels)), rate)
    with pytest.raises(AudioError) as caught:
        audio.probe(path)
    assert str(caught.value) == f"{path}: found {message}"
