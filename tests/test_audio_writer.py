"""Writing audio files."""

import os
import resource
import shutil
import struct

import numpy as np
import pytest
import soundfile
from audio_files import integers

from data_pipeline import audio
from data_pipeline.audio_writer import audio_writer, write_wav
from data_pipeline.errors import AudioError
from data_pipeline.formats import WRITABLE
from data_pipeline.wav import read_wav, wav_info

_SINE = 0.5 * np.sin(np.arange(9_000, dtype=np.float32) / 20)[:, None]


@pytest.mark.parametrize(("encoding", "bits"), [("pcm16", 16), ("pcm24", 24)])
def test_written_integers_come_back(tmp_path, encoding, bits):
    path = tmp_path / "made" / "x.wav"
    x = (integers(bits) / 2.0 ** (bits - 1)).astype(np.float32)
    write_wav(path, x, 32_000, encoding)
    assert wav_info(path).encoding == encoding
    assert wav_info(path).sample_rate == 32_000
    np.testing.assert_array_equal(read_wav(path), x)
    assert os.listdir(path.parent) == ["x.wav"]


def test_16_bit_rounds_half_to_even_and_clips(tmp_path):
    path = tmp_path / "x.wav"
    given = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.4999, 40_000, -40_000, 32_767.4]) / 32_768
    write_wav(path, given[:, None], 44_100)
    found = read_wav(path)[:, 0] * 32_768
    assert found.tolist() == [0, 2, 2, 0, -2, 0, 32_767, -32_768, 32_767]


def test_float_is_written_as_it_is(tmp_path):
    x = np.array([[1.7, -3.0], [1e-9, 0.1]], np.float32)
    write_wav(tmp_path / "x.wav", x, 44_100, "float32")
    np.testing.assert_array_equal(read_wav(tmp_path / "x.wav"), x)


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.wav"
    write_wav(path, np.zeros((10, 1)), 44_100)
    before = path.read_bytes()
    with pytest.raises(AudioError, match=r"x\.wav: found NaN or infinite samples"):
        write_wav(path, np.array([[np.nan]]), 44_100)

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", full_disk)
    with pytest.raises(AudioError, match=r"x\.wav: cannot be written \(.*No space left"):
        write_wav(path, np.ones((10, 1)), 44_100)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.wav"]


def test_writing_in_blocks_equals_writing_at_once(tmp_path):
    x = np.random.default_rng(0).uniform(-1, 1, (1_000, 2))
    for encoding in ("pcm16", "pcm24", "float32"):
        write_wav(tmp_path / "once.wav", x, 44_100, encoding)
        with audio_writer(tmp_path / "blocks.wav", 44_100, 2, encoding) as write:
            write(x[:300])
            assert os.listdir(tmp_path).count("blocks.wav") == 0
            write(x[300:])
        expected = read_wav(tmp_path / "once.wav")
        np.testing.assert_array_equal(read_wav(tmp_path / "blocks.wav"), expected)
        os.remove(tmp_path / "blocks.wav")


@pytest.mark.parametrize(("encoding", "bits"), [("pcm16", 16), ("pcm24", 24)])
def test_written_flac_comes_back(tmp_path, encoding, bits):
    path = tmp_path / "made" / "x.FLAC"
    x = (integers(bits, channels=8) / 2.0 ** (bits - 1)).astype(np.float32)
    with audio_writer(path, 32_000, 8, encoding) as write:
        write(x[:5_000])
        write(x[5_000:])
    info = soundfile.info(path)
    assert (info.format, info.subtype) == ("FLAC", f"PCM_{bits}" if bits == 24 else "PCM_16")
    np.testing.assert_array_equal(audio.read(path)[0], x)
    assert os.listdir(path.parent) == ["x.FLAC"]


def test_flac_rounds_and_clips_as_wav_does(tmp_path):
    given = np.array([[0.5, 1.5, 2.5, -0.5, 40_000, -40_000]]).T / 32_768
    with audio_writer(tmp_path / "x.flac", 44_100, 1) as write:
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
        audio_writer(path, rate, channels, encoding),
    ):
        pass
    assert str(caught.value) == f"{path}: found {message}"
    assert os.listdir(tmp_path) == []


def test_flac_stores_every_rate_that_is_not_refused(tmp_path):
    path = tmp_path / "x.flac"
    for rate in (1, 65_535, 65_540, 655_350):
        with audio_writer(path, rate, 1) as write:
            write(np.zeros((100, 1)))
        assert soundfile.info(path).samplerate == rate


def test_errors_of_libsndfile_do_not_name_the_hidden_file(tmp_path, monkeypatch):
    path = tmp_path / "x.flac"
    monkeypatch.setattr("data_pipeline.audio_writer.check_format", lambda *_: "FLAC")
    with pytest.raises(AudioError) as caught, audio_writer(path, 705_600, 1):
        pass
    assert str(caught.value) == (
        f"{path}: cannot be written (flac does not support this sample rate)"
    )
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AudioError) as caught:
        write_wav(tmp_path / "folder.wav", np.zeros((10, 1)), 44_100)
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
        with audio_writer(path, 44_100, 2, encoding) as write:
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
        write_wav(path, np.zeros((6_000, 2)), 44_100)
    assert str(caught.value) == f"{path}: cannot be written (no space left)"


@pytest.mark.parametrize("encoding", ["float32", "pcm24", "pcm16"])
@pytest.mark.parametrize("samples", [1, 2, 3, 1000])
def test_wav_of_unknown_length_is_a_plain_one_that_all_programs_read(tmp_path, encoding, samples):
    path = tmp_path / "a.wav"
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (samples, 2)).astype(np.float32)
    with audio_writer(path, 44_100, 2, encoding, None) as write:
        write(x[:1])
        write(x[1:])
    content = path.read_bytes()
    assert content[:4] == b"RIFF"
    assert struct.unpack("<I", content[4:8])[0] == len(content) - 8
    assert soundfile.info(path).frames == wav_info(path).frames == samples
    np.testing.assert_allclose(read_wav(path), x, rtol=0, atol=2e-5)
    np.testing.assert_allclose(soundfile.read(path)[0], x, rtol=0, atol=2e-5)


@pytest.mark.parametrize("ending", WRITABLE)
def test_names_that_are_not_utf8_are_written(tmp_path, ending):
    folder = tmp_path / os.fsdecode(b"lat\xe9")
    write_wav(folder / os.fsdecode(b"\xff" + ending.encode()), _SINE, 44_100)
    assert os.listdir(os.fsencode(folder)) == [b"\xff" + ending.encode()]
    found, _ = audio.read(folder / os.listdir(folder)[0])
    np.testing.assert_allclose(found, _SINE, atol=2e-5 if WRITABLE[ending].encodings else 0.1)
