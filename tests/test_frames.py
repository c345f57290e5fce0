"""Codec by codec: which packets are audio, what checksums mean, and chained files."""

import av
import numpy as np
import pytest
import soundfile
from audio_files import salvage
from encoding import encode

from data_pipeline import audio, frames
from data_pipeline.errors import AudioError

_ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
_APEV2 = b"".join(
    b"APETAGEX" + np.array([2000, 51, 1, flags, 0, 0], "<u4").tobytes() + item
    for flags, item in ((0xA0000000, b"\7\0\0\0\0\0\0\0Title\0abcdefg"[:19]), (0x80000000, b""))
)
_LYRICS3 = b"LYRICSBEGININD0000210LYR00009some words000044LYRICS200"
_TAILS = {
    "zeros": bytes(6_000),
    "many zeros": bytes(300_000),
    "ID3v1": _ID3V1,
    "APEv2 and ID3v1": _APEV2 + _ID3V1,
    "Lyrics3 and ID3v1": _LYRICS3 + _ID3V1,
    "text": b"no sound, but words " * 400,
    "noise": np.random.default_rng(3).bytes(40_000),
    "three bytes": b"abc",
    "ones": b"\xff" * 3_000,
}


def _noise(samples, seed=0, channels=2):
    return np.random.default_rng(seed).normal(scale=0.1, size=(samples, channels))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Ending -> content of a file of 3 s of noise."""
    folder, contents = tmp_path_factory.mktemp("whole"), {}
    for ending in ("mp3", "flac", "aac", "ogg", "opus", "wv", "tta", "au", "aiff", "mka"):
        path = folder / f"x.{ending}"
        codec = {"aac": "aac", "mka": "aac", "wv": "wavpack", "tta": "tta"}.get(ending)
        if codec:
            encode(path, _noise(144_000), 48_000, codec)
        else:
            kind = {"opus": {"format": "OGG", "subtype": "OPUS"}}.get(ending, {})
            soundfile.write(path, _noise(144_000), 48_000, **kind)
        contents[ending] = path.read_bytes()
    return contents


@pytest.mark.parametrize(
    "ending", ["mp3", "flac", "aac", "ogg", "opus", "wv", "tta", "au", "aiff", "mka"]
)
def test_bytes_behind_the_last_frame_are_no_damage(tmp_path, whole, ending):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(whole[ending])
    _, expected, _ = salvage(path)
    for name, tail in _TAILS.items():
        path.write_bytes(whole[ending] + tail)
        _, found, message = salvage(path)
        assert message == "", name
        assert len(found) == len(expected), name
        assert (np.abs(found - expected) > 1e-6).mean() < (
            0.05 if ending in ("aac", "mka") else 1e-9
        )
        assert len(audio.read(path)[0]) == len(found)


def test_mp3s_that_were_joined_are_no_damage(tmp_path, whole):
    path = tmp_path / "x.mp3"
    for tag in (b"", b"ID3\4\0\0\0\0\x64\5" + b"x" * (100 * 128 + 5)):
        path.write_bytes(whole["mp3"] + tag + whole["mp3"])
        _, found, message = salvage(path)
        assert message == ""
        # Delay and padding between the two remain.
        assert 2 * 144_000 <= len(found) < 2 * 144_000 + 4 * 1_152
        assert len(audio.read(path)[0]) == len(found)


def test_bytes_behind_a_flac_of_unknown_length_are_no_damage(tmp_path, whole):
    path = tmp_path / "x.flac"
    data = bytearray(whole["flac"])
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])  # as in a FLAC that was written to a pipe
    for tail in _TAILS.values():
        path.write_bytes(data + tail)
        info, found, message = salvage(path)
        assert (info.seconds, len(found), message) == (None, 144_000, "")


@pytest.mark.parametrize("ending", ["aac", "wv"])
def test_last_frame_that_was_cut_is_damage(tmp_path, whole, ending):
    path = tmp_path / f"x.{ending}"
    for tail in (b"", _ID3V1):
        path.write_bytes(whole[ending][:-2_000] + tail)
        assert "cannot be decoded" in salvage(path)[2]


def test_zeros_in_place_of_mp3_frames_are_damage(tmp_path, whole):
    path = tmp_path / "x.mp3"  # as a download that was not finished
    size = len(whole["mp3"])
    path.write_bytes(whole["mp3"][: size // 2].ljust(size, b"\0"))
    _, found, message = salvage(path)
    assert 60_000 < len(found) < 72_000
    assert message.endswith("s on cannot be decoded")
    with pytest.raises(AudioError, match="audio that cannot be decoded after 1"):
        audio.read(path)


def test_wrong_checksums_in_mp3_are_no_damage(tmp_path):
    t = np.arange(96_000) / 48_000
    sine = 0.1 * np.sin(2 * np.pi * 440 * t)[:, None]
    plain, path = tmp_path / "plain.mp3", tmp_path / "x.mp3"
    encode(plain, sine, 48_000, "libmp3lame", b="320k", reservoir="0")
    with av.open(str(plain)) as file:
        whole = [bytes(packet) for packet in file.demux() if packet.size]
    plain.write_bytes(b"".join(whole))
    # The bit for a checksum, a wrong one, and two bytes less of the stuffing at the frame's end.
    path.write_bytes(
        b"".join(
            frame[:1] + bytes([frame[1] & 0xFE]) + frame[2:4] + b"\x12\x34" + frame[4:-2]
            for frame in whole
        )
    )
    _, found, message = salvage(path)
    assert message == ""
    expected = audio.read(plain)[0]
    assert np.abs(expected).max() > 0.09
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(audio.read(path)[0], expected)


@pytest.mark.parametrize("ending", ["flac", "wv", "tta", "ac3"])
def test_checksums_reveal_a_flipped_bit(tmp_path, whole, ending):
    path = tmp_path / f"x.{ending}"
    if ending == "ac3":
        encode(path, _noise(144_000), 48_000, "ac3")
    else:
        path.write_bytes(whole[ending])
    assert salvage(path)[2] == ""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    assert "cannot be decoded and are silent" in salvage(path)[2]


# Parts of one page have no timestamps of their own; FFmpeg's libraries cut them at a wrong place.
@pytest.mark.parametrize("lengths", [(60_000, 40_000), (1_000, 200, 5_000), (200, 60_000, 1_000)])
@pytest.mark.parametrize("kind", ["vorbis", "opus", "flac"])
def test_parts_of_a_chained_file_are_as_each_alone(tmp_path, kind, lengths):
    path, parts, expected = tmp_path / "x.ogg", [], []
    for seed, samples in enumerate(lengths):
        if kind == "flac":
            encode(path, _noise(samples, seed), 48_000, "flac")
        else:
            soundfile.write(path, _noise(samples, seed), 48_000, subtype=kind.upper())
        parts.append(path.read_bytes())
        expected.append(audio.read(path)[0])
        assert len(expected[-1]) == samples
        if kind != "flac":  # which libsndfile reads without Ogg alone
            truth = soundfile.read(path, dtype="float32")[0]
            np.testing.assert_allclose(expected[-1], truth, atol=2e-3 if kind == "opus" else 1e-5)
    path.write_bytes(b"".join(parts))
    _, found, message = salvage(path)
    assert message == ""
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_damage_in_a_later_part_of_a_chained_file_keeps_its_place(tmp_path):
    path = tmp_path / "x.ogg"
    soundfile.write(path, _noise(100_000), 48_000)
    first = path.read_bytes()
    soundfile.write(path, _noise(480_000, 1), 48_000)
    second = path.read_bytes()
    expected = soundfile.read(path, dtype="float32")[0]
    middle = len(second) // 2
    path.write_bytes(first + second[:middle] + bytes(9_000) + second[middle + 9_000 :])
    _, found, message = salvage(path)
    assert len(found) == 580_000
    lost = (found == 0).all(axis=1)
    assert 300_000 < np.flatnonzero(lost).min() < np.flatnonzero(lost).max() < 400_000
    np.testing.assert_allclose(found[-150_000:], expected[-150_000:], atol=1e-5)
    assert "are silent" in message


def test_streams_that_begin_within_the_file_are_no_damage(tmp_path):
    path = tmp_path / "x.ts"
    encode(path, _noise(48_000), 48_000, "aac")
    expected = audio.read(path)[0]

    class Container:
        """As PyAV's, which ends so if a stream begins too late to be known from the start."""

        def __init__(self, real):
            self.format, self.demuxed = real.format, real.demux

        def demux(self, stream):
            yield from self.demuxed(stream)
            raise IndexError("list index out of range")

    with av.open(str(path)) as file:
        found = list(frames.frames(Container(file), file.streams.audio[0]))
    assert all(isinstance(each, frames.Frame) for each in found)
    assert sum(each.samples for each in found) == len(expected)


def test_vorbis_with_blocks_of_both_lengths(tmp_path):
    """FFmpeg's libraries state wrong durations where the lengths change."""
    samples = 0.03 * np.sin(2 * np.pi * 220 / 44_100 * np.arange(44_100))
    samples[::3000] = 0.5  # clicks
    soundfile.write(tmp_path / "x.ogg", samples, 44_100, format="OGG", subtype="VORBIS")
    expected, _ = soundfile.read(tmp_path / "x.ogg", dtype="float32", always_2d=True)
    found, _ = audio.read(tmp_path / "x.ogg")
    np.testing.assert_allclose(found, expected, atol=1e-5)
