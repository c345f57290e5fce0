"""Compressed files: correct samples in the correct place, and salvaging damaged files."""

import re
import struct

import av
import numpy as np
import pytest
import soundfile
from audio_files import integers, salvage

from data_pipeline import audio, sigsep
from data_pipeline.audio_writer import write_wav
from data_pipeline.errors import AudioError, DamagedError


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


@pytest.mark.parametrize(("name", "subtype"), [("x.flac", "PCM_16"), ("x.flac", "PCM_24")])
def test_flac_is_exact(tmp_path, name, subtype):
    bits = int(subtype[4:])
    x = integers(bits, 30_000)
    soundfile.write(tmp_path / name, (x << (32 - bits)).astype(np.int32), 44_100, subtype=subtype)
    found, _ = audio.read(tmp_path / name)
    np.testing.assert_array_equal(found, (x / 2.0 ** (bits - 1)).astype(np.float32))


# The shorter ones fit in one page of Ogg, whose end FFmpeg's libraries get wrong both ways.
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
    assert len(found) == 44_100  # without the codec's delay and padding
    spectra = np.fft.rfft(found[:, 0], 2 * len(x)), np.fft.rfft(x[:, 0], 2 * len(x))
    assert np.fft.irfft(spectra[0] * spectra[1].conj()).argmax() == 0


def test_streams_are_told_apart(tmp_path):
    path = tmp_path / "x.stem.mp4"
    _encode(path, _chirp(22_050, 44_100), 44_100, "aac", streams=3)
    choice = "found 3 audio streams, read number 0 (from 0)"
    assert audio.probe(path) == audio.AudioInfo(44_100, 2, 3, 0.5, 0.5, choice)
    levels = [np.abs(audio.read(path, stream)[0]).max() for stream in range(3)]
    np.testing.assert_allclose(levels[0] / np.array(levels), [1, 2, 3], rtol=0.1)
    with pytest.raises(AudioError, match=r"x\.stem\.mp4: found 3 audio streams, expected at leas"):
        audio.read(path, 3)


def test_musdb_excerpt():
    path = sigsep.load("stempeg").example_stem_path()
    with audio.recording(path, 4) as (info, blocks):
        assert info == audio.AudioInfo(44_100, 2, 5, 268_288 / 44_100, 268_288 / 44_100)
        pieces = list(blocks)
    assert len(pieces) > 100  # piece by piece
    assert all(piece.dtype == np.float32 for piece in pieces)
    assert sum(len(piece) for piece in pieces) == 268_288


def test_tags_in_an_unknown_code_page(tmp_path):
    path = tmp_path / "x.wav"
    write_wav(path, np.ones((100, 1)) / 2, 44_100)
    tag = b"INFOINAM" + struct.pack("<I", 4) + b"\xfc\xff\xe9\0"
    data = path.read_bytes()
    path.write_bytes(data[:12] + b"LIST" + struct.pack("<I", len(tag)) + tag + data[12:])
    assert audio.read(path)[0].shape == (100, 1)


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


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp4", "mp3"])
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
    if ending != "mp3":  # the header does not show the damage
        assert audio.probe(path).seconds == pytest.approx(3, abs=0.01)
    with pytest.raises(AudioError) as caught:
        audio.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: found ")
    assert "audio that cannot be decoded after" in message or "(truncated or damaged)" in message


def test_wrong_timestamps_give_little_silence(tmp_path):
    path = tmp_path / "x.mp4"
    _encode(path, np.random.default_rng(0).normal(scale=0.1, size=(88_200, 2)), 44_100, "aac")
    data = bytearray(path.read_bytes().replace(b"edts", b"free"))  # it limits the length, too
    at = data.index(b"stts") + 16  # the time between two frames
    data[at : at + 4] = struct.pack(">I", 20 * 44_100)
    at = data.index(b"mdhd") + 20  # the length
    data[at : at + 4] = struct.pack(">I", 3_600 * 44_100)
    path.write_bytes(data)
    info, found, message = salvage(path)
    assert info.seconds > 1_000
    assert 2 * 44_100 < len(found) < 70 * 44_100
    assert "are silent" in message


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


def _flac(path, samples: int) -> tuple[np.ndarray, bytes]:
    """Noise in a FLAC file whose frames have 4096 samples; no run of them is silent."""
    x = integers(16, samples)
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
    info, found, message = salvage(path)
    assert info.seconds == len(x) / 44_100
    assert found.shape == x.shape
    # Whole frames are lost: the damaged ones and at most one next to them.
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
    _, found, message = salvage(path)
    assert found.shape == x.shape
    np.testing.assert_array_equal(found[3 * 4_096 :], x[3 * 4_096 :])
    assert "s of it, from 0.00 s on, cannot be decoded and are silent" in message


# As `ffmpeg -ss 3 -t 2 -c copy` cuts: frames keep their numbers, the header its number of samples.
@pytest.mark.parametrize(("first", "last"), [(60, 100), (0, 40), (30, 70), (99, 100)])
def test_flac_that_was_cut_between_frames_is_continuous(tmp_path, first, last):
    path = tmp_path / "x.flac"
    x, data = _flac(path, 99 * 4_096 + 77)
    with av.open(str(path)) as file:
        frames = [bytes(packet) for packet in file.demux() if packet.size]
    assert len(frames) == 100
    header = data[: -sum(map(len, frames))]
    path.write_bytes(header + b"".join(frames[first:last]))
    _, found, message = salvage(path)
    assert message == ""
    np.testing.assert_array_equal(found, x[first * 4_096 : last * 4_096])
    np.testing.assert_array_equal(audio.read(path)[0], found)


@pytest.mark.parametrize("place", [100, 40_000])
def test_flac_that_was_cut_and_damaged(tmp_path, place):
    path = tmp_path / "x.flac"
    x, data = _flac(path, 100 * 4_096)
    with av.open(str(path)) as file:
        frames = [bytes(packet) for packet in file.demux() if packet.size]
    held = bytearray(b"".join(frames[50:90]))
    held[place] ^= 1
    path.write_bytes(data[: -sum(map(len, frames))] + held)
    _, found, message = salvage(path)
    expected = x[50 * 4_096 : 90 * 4_096].copy()
    at = place // len(frames[0]) * 4_096
    np.testing.assert_array_equal(found[:at], expected[:at])
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found[at + 2 * 4_096 :], expected[at + 2 * 4_096 :])
    assert "s on, cannot be decoded and are silent" in message


def test_truncated_flac_is_salvaged(tmp_path):
    path = tmp_path / "x.flac"
    x, data = _flac(path, 10 * 44_100)
    path.write_bytes(data[: len(data) // 2])
    _, found, message = salvage(path)
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
    _, found, message = salvage(path)
    assert 4.5 < len(found) / 44_100 < 5.1
    np.testing.assert_allclose(found, whole[: len(found)], atol=1e-6)
    assert message == ""  # an Ogg file does not state its length


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
    _, found, message = salvage(path)
    assert found.shape == whole.shape
    silent = np.flatnonzero((found == 0).all(axis=1))
    assert len(silent) == silent[-1] - silent[0] + 1 > 10_000
    for part in (slice(180_000), slice(-120_000, None)):
        # Some of AAC's noise is generated by the decoder, differently each time.
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


def test_damaged_mp3_continues_after_the_gap(tmp_path):
    path = tmp_path / "x.mp3"
    soundfile.write(path, np.random.default_rng(0).normal(scale=0.1, size=(441_000, 2)), 44_100)
    whole, _ = audio.read(path)
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(20_000) + data[middle + 20_000 :])
    _, found, message = salvage(path)
    np.testing.assert_allclose(found[:200_000], whole[:200_000], atol=1e-6)
    # The length of the gap is unknown: what follows is complete, but earlier.
    spectra = [np.fft.rfft(x[-100_000:, 0], 2**18) for x in (whole, found)]
    peak = np.fft.irfft(spectra[0].conj() * spectra[1])
    assert peak.max() > 0.9 * (whole[-100_000:, 0] ** 2).sum()
    assert re.search(
        r"found 8\.\d\d s of audio \(damaged\), 0\.\d\d s of it, from 4\.99 s", message
    )


def test_whole_files_need_no_salvage(tmp_path):
    stems = sigsep.load("stempeg").example_stem_path()
    _, found, message = salvage(stems, 3)
    np.testing.assert_array_equal(found, audio.read(stems, 3)[0])
    assert message == ""
    x = np.random.default_rng(0).normal(scale=1e-3, size=(30_000, 1))
    x[::5_000] = 0.9  # makes codecs change their block size
    for ending in ("ogg", "opus", "mp3", "flac", "aiff", "caf", "au", "mka", "aac"):
        path = tmp_path / f"x.{ending}"
        if ending in ("mka", "aac"):
            _encode(path, np.tile(x, 2), 48_000, "aac")
        else:
            kind = {"opus": {"format": "OGG", "subtype": "OPUS"}}.get(ending, {})
            soundfile.write(path, x, 48_000, **kind)
        _, found, message = salvage(path)
        assert message == ""
        np.testing.assert_array_equal(found, audio.read(path)[0])


@pytest.mark.parametrize("salvage", [False, True])
def test_change_of_format_within_a_file(tmp_path, salvage):
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
        salvage(path)
    assert type(caught.value) is AudioError
    with pytest.raises(AudioError, match=rf"noise\.{ending}: found "):
        audio.read(path)


@pytest.mark.parametrize("ending", [".aiff", ".au"])
def test_cut_aiff_and_au_are_reported(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    soundfile.write(path, np.zeros((50_000, 2)), 44_100)
    path.write_bytes(path.read_bytes()[:120_000])
    with audio.recording(path, salvage=True) as (_, blocks), pytest.raises(DamagedError) as caught:
        list(blocks)
    assert "that its header promises are missing" in str(caught.value)
