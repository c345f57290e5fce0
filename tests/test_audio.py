"""Reading, resampling and finding audio files."""

import io
import os
import struct

import av
import numpy as np
import pytest
import soundfile
from audio_files import salvage

from data_pipeline import audio, listing
from data_pipeline.errors import AudioError


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
