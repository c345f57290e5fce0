"""What is written: formats, lengths, .stem.mp4, tags, names, sums, and parts of recordings."""

import itertools
import json
import os
import resource
import shutil
import sys
import types

import av
import mutagen
import numpy as np
import pytest
import soundfile
from audio_files import salvage

from data_pipeline import audio, sigsep, tags
from data_pipeline.audio import Part
from data_pipeline.audio_writer import audio_writer, write_wav
from data_pipeline.errors import AudioError
from data_pipeline.formats import WRITABLE, check_format
from experiments.preparing import inputs
from experiments.separating import separation_flags
from experiments.separating.output import Output, check_pattern, parse_stems
from experiments.separating.recording import separate_file
from sccunet.checks import ConfigError

_STEMS = ("vocals", "drums", "bass", "other")
_LOSSY = [ending for ending, kind in WRITABLE.items() if not kind.encodings]


class _Separator:
    """Gives each stem its own share of the mixture."""

    def stream(self, blocks, rate):
        for block in blocks:
            yield {stem: block * (2 + i) / 14 for i, stem in enumerate(_STEMS)}


def _sweep(samples, rate, channels=2):
    """Sines of rising frequency, [samples, channels]: no two places are alike."""
    t = np.arange(samples)[:, None] / rate
    start = 200 + 100 * np.arange(channels)
    return 0.4 * np.sin(2 * np.pi * (start + 500 * t) * t).astype(np.float32)


def _write(path, x, rate, **options):
    with audio_writer(path, rate, x.shape[1], **options) as write:
        for start in range(0, len(x), 4_000):
            write(x[start : start + 4_000])
    return path


def _lag(x, y):
    """By how many samples y is late."""
    spectra = np.fft.rfft(x, 2 * len(x)).conj() * np.fft.rfft(y, 2 * len(x))
    lag = int(np.argmax(np.fft.irfft(spectra)))
    return lag if lag < len(x) else lag - 2 * len(x)


@pytest.mark.parametrize("ending", [".mp3", ".ogg", ".m4a"])
@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_lossy_files_decode_to_the_samples_written(tmp_path, ending, rate):
    for samples, channels in ((1, 1), (1_153, 2), (20_001, 1)):
        x = _sweep(samples, rate, channels)
        path = _write(tmp_path / f"x{ending}", x, rate)
        info, found, message = salvage(path)
        assert (found.shape, info.sample_rate, message) == (x.shape, rate, "")
        np.testing.assert_array_equal(audio.read(path)[0], found)
    assert _lag(x[:, 0], found[:, 0]) == 0
    assert np.linalg.norm(found - x) < 0.1 * np.linalg.norm(x)
    assert os.listdir(tmp_path) == [path.name]


def test_aac_begins_without_a_click(tmp_path):
    x = 0.5 * np.sin(np.arange(9_000) / 20)[:, None]
    found, _ = audio.read(_write(tmp_path / "x.m4a", x, 44_100))
    np.testing.assert_allclose(found[:2_000], x[:2_000], atol=0.02)


@pytest.mark.parametrize("ending", [".mp3", ".ogg", ".m4a"])
def test_bitrates(tmp_path, ending):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (44_100, 2))
    sizes = []
    for bitrate in (64, 192):
        path = _write(tmp_path / f"x{ending}", noise, 44_100, bitrate=bitrate)
        sizes.append(path.stat().st_size / 125)  # kbit
        # Noise takes more than music at the same quality, which is what Vorbis keeps.
        most = 1.7 if ending == ".ogg" else 1.3
        assert 0.9 * bitrate < sizes[-1] < most * bitrate
    path = _write(tmp_path / f"x{ending}", noise, 44_100)
    assert 0.9 * 2 * WRITABLE[ending].bitrate < path.stat().st_size / 125
    # Beyond what there is at a rate: the nearest.
    for bitrate, rate in itertools.product(WRITABLE[ending].bitrates, (8_000, 24_000, 48_000)):
        _write(tmp_path / f"x{ending}", noise[:3_000], rate, bitrate=bitrate)
        assert len(audio.read(tmp_path / f"x{ending}")[0]) == 3_000


def test_rates_that_a_codec_lacks_become_others():
    expected = {
        ".mp3": {96_000: 48_000, 88_200: 44_100, 176_400: 44_100, 37_800: 44_100, 4_000: 8_000},
        ".m4a": {96_000: 48_000, 44_056: 44_100},
        ".ogg": {96_000: 96_000, 384_000: 192_000, 352_800: 176_400, 37_801: 37_801},
        ".wav": {384_000: 384_000},
    }
    for ending, rates in expected.items():
        assert {rate: WRITABLE[ending].rate(rate) for rate in rates} == rates


@pytest.mark.parametrize("rate", [96_000, 37_800])
def test_other_rates_are_resampled(tmp_path, rate):
    assert len(audio.read(_write(tmp_path / "x.mp3", _sweep(1, 4 * rate), 4 * rate))[0]) == 1
    x = _sweep(20_001, rate)
    for ending in (".mp3", ".stem.mp4"):
        stems = ["a"] if ending == ".stem.mp4" else []
        with audio_writer(tmp_path / f"x{ending}", rate, 2, stems=stems) as write:
            for start in range(0, len(x), 7_000):
                write(np.tile(x[start : start + 7_000], (1, 1 + len(stems))))
        found, new = audio.read(tmp_path / f"x{ending}")
        assert new == WRITABLE[ending].rate(rate)
        expected = audio.resample(x, rate, new)
        assert found.shape == expected.shape
        assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize("ending", _LOSSY)
def test_channels_that_lossy_files_lack(tmp_path, ending):
    with pytest.raises(AudioError) as caught:
        check_format(tmp_path / f"x{ending}", 44_100, 6)
    message = "expected at most 2 (more in FLAC and WAV)"
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize("ending", [".mp3", ".ogg", ".m4a"])
def test_lossy_files_are_whole_or_not_there(tmp_path, ending):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (30_000, 2))
    path = _write(tmp_path / f"x{ending}", noise, 44_100)
    size = path.stat().st_size
    path.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (10, size // 2, size - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(AudioError) as caught:
                _write(path, noise, 44_100)
            assert str(caught.value).startswith(f"{path}: cannot be written (")
            assert os.listdir(tmp_path) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(AudioError, match="NaN"):
        _write(path, noise * np.nan, 44_100)
    assert os.listdir(tmp_path) == []


def _atom(content, *names):
    """Returns the content of an atom in an MP4 file, given by its path."""
    for name in names:
        at = 0
        while content[at + 4 : at + 8] != name:
            at += int.from_bytes(content[at : at + 4], "big")
        content = content[at + 8 : at + int.from_bytes(content[at : at + 4], "big")]
    return content


def test_stem_files_have_the_layout_of_musdb_and_traktor(tmp_path):
    x = _sweep(20_001, 44_100)
    write_wav(tmp_path / "song.wav", x, 44_100, "float32")
    output = Output(parse_stems([], _STEMS), ".stem.mp4", None, "rescale")
    folder = tmp_path / "train" / "song"
    separate_file(_Separator(), tmp_path / "song.wav", folder, output)
    path = folder / "song.stem.mp4"
    assert os.listdir(folder) == [path.name]
    names = ("drums", "bass", "other", "vocals")
    sources = inputs.sources_of(str(path))
    assert tuple(sources) == ("mixture", *names)
    inputs.check_sources(sources)
    for name, (file, stream) in sources.items():
        found, _ = audio.read(file, stream)
        expected = x if name == "mixture" else x * (2 + _STEMS.index(name)) / 14
        assert found.shape == x.shape
        assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)
    with av.open(str(path)) as container:
        titles = [stream.metadata["handler_name"] for stream in container.streams.audio]
    assert titles == ["mixture", *names]
    with audio.recording(path) as (info, _):
        assert info.choice == "found 5 audio streams, read number 0 (from 0)"
    content = path.read_bytes()
    assert content[8:12] == b"M4A "
    stems = json.loads(_atom(content, b"moov", b"udta", b"stem"))
    assert [stem["name"] for stem in stems["stems"]] == list(names)
    # Players play the mixture alone: only its track is enabled.
    flags = [part[3] & 1 for part in content.split(b"tkhd")[1:]]
    assert flags == [1, 0, 0, 0, 0]


@pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")),
    reason="stempeg runs ffmpeg and ffprobe",
)
def test_stempeg_reads_stem_files(tmp_path):
    x = _sweep(9_000, 44_100, 2)
    write_wav(tmp_path / "song.wav", x, 44_100, "float32")
    output = Output(parse_stems([], _STEMS), ".stem.mp4", None, "rescale")
    separate_file(_Separator(), tmp_path / "song.wav", tmp_path / "out", output)
    path = tmp_path / "out" / "out.stem.mp4"
    read, _ = sigsep.load("stempeg").read_stems(str(path))  # in whole blocks of the coder
    for found, stream in zip(read, range(5), strict=True):
        np.testing.assert_allclose(found[: len(x)], audio.read(path, stream)[0], atol=1e-3)


def test_stem_files_of_other_stems(tmp_path, capsys):
    x = 2 * _sweep(9_000, 44_100, 1) + 0.25
    write_wav(tmp_path / "song.wav", x, 44_100, "float32")
    stems = parse_stems(["vocals", "accompaniment"], _STEMS)
    output = Output(stems, ".stem.mp4", None, "rescale", residual=True)
    assert output.names == ["mixture", "vocals", "accompaniment", "residual"]
    separate_file(_Separator(), tmp_path / "song.wav", tmp_path / "out", output)
    assert "stems turned down by 0.4 dB" in capsys.readouterr().out
    peak = np.abs(x).max()  # the mixture's counts, too
    for stream, share in enumerate((1, 2 / 14, 12 / 14, 0)):
        found, _ = audio.read(tmp_path / "out" / "out.stem.mp4", stream)
        assert found.shape == x.shape
        assert np.linalg.norm(found - share * x / peak) < 0.05 * np.linalg.norm(x / peak)


# A picture of one pixel.
_PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0:~\x9bU\0\0\0\nIDATx\x9cc`\0\0\0\2\0"
    b"\1H\xaf\xa4q\0\0\0\0IEND\xaeB`\x82"
)
_TAGS = tags.Tags(
    {
        "title": ["Größe"],
        "artist": ["A", "B"],
        "album": ["C/D"],
        "date": ["1999"],
        "genre": ["Rock"],
        "tracknumber": ["3/12"],
        "discnumber": ["1"],
        "bpm": ["120"],
        "initialkey": ["Am"],
        "comment": ["none"],
    },
    ("image/png", _PNG),
)


@pytest.mark.parametrize("source", [".wav", ".flac", ".mp3", ".ogg", ".m4a"])
def test_tags_are_copied(tmp_path, source):
    song = _write(tmp_path / f"song{source}", _sweep(3_000, 44_100), 44_100)
    assert not tags.has_tags(song)
    assert tags.read_tags(song) is None
    tags.write_tags(song, _TAGS, None)
    assert tags.has_tags(song)
    assert tags.read_tags(song) == _TAGS
    for ending, kind in WRITABLE.items():
        stems = parse_stems(["vocals"], _STEMS)
        clip_mode = "none" if ending == ".wav" else "clamp"
        output = Output(stems, ending, kind.encodings[0] if kind.encodings else None, clip_mode)
        separate_file(_Separator(), song, tmp_path / "out", output)
        [file] = output.written("out")
        found = tags.read_tags(tmp_path / "out" / file)
        title = "Größe" if kind.stems else "Größe (vocals)"
        assert found == tags.Tags({**_TAGS.fields, "title": [title]}, _TAGS.cover)
        assert len(audio.read(tmp_path / "out" / file)[0]) == len(audio.read(song)[0])
        if kind.stems:
            content = (tmp_path / "out" / file).read_bytes()
            assert json.loads(_atom(content, b"moov", b"udta", b"stem"))["version"] == 1


def test_bad_tags_are_left_out(tmp_path, monkeypatch):
    song = _write(tmp_path / "song.mp3", _sweep(3_000, 44_100), 44_100)
    bad = tags.Tags({"bpm": ["fast"], "tracknumber": ["A1"], "date": ["soon"], "title": ["x"]})
    for ending in WRITABLE:
        path = _write(
            tmp_path / f"stem{ending}",
            _sweep(3_000, 44_100),
            44_100,
            encoding=(WRITABLE[ending].encodings or (None,))[0],
        )
        tags.write_tags(path, bad, "a")
        assert tags.read_tags(path).fields["title"] == ["x (a)"]
        assert len(audio.read(path)[0]) == 3_000
    (tmp_path / "damaged.mp3").write_bytes(
        b"ID3\4\0\0\0\0\1\1TIT2\xff\xff\xff\xff" + song.read_bytes()
    )
    for path in (tmp_path / "damaged.mp3", tmp_path / "missing.mp3", tmp_path):
        assert tags.read_tags(path) is None
        assert not tags.has_tags(path)

    def full(*_, **__):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise mutagen.MutagenError(error) from error

    monkeypatch.setattr("mutagen.mp3.MP3.save", full)
    with pytest.raises(OSError, match="No space"):
        tags.write_tags(song, bad, None)


def test_without_mutagen_one_line_says_what_brings_it(tmp_path, monkeypatch, capsys):
    songs = [_write(tmp_path / f"{i}.mp3", _sweep(3_000, 44_100), 44_100) for i in range(3)]
    for song in songs[1:]:
        tags.write_tags(song, _TAGS, None)
    separation_flags.warn_of_tags(map(str, songs))
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "mutagen", None)
    separation_flags.warn_of_tags(["-", str(songs[0])])
    assert capsys.readouterr().err == ""
    separation_flags.warn_of_tags(map(str, songs))
    line = capsys.readouterr().err
    assert line.startswith(f"warning: {songs[1]}: its tags are not copied: ")
    assert line.endswith(" needs mutagen: pip install 'sccunet[tags]'\n")
    assert line.count("\n") == 1
    assert tags.read_tags(songs[1]) is None


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "m4a"])
def test_parts_of_recordings(tmp_path, kind, monkeypatch):
    path = _write(tmp_path / f"x.{kind}", _sweep(30_000, 10_000), 10_000)
    whole, rate = audio.read(path)

    def read(*given, name=str(path)):
        with audio.recording(name, part=Part(*given)) as (info, blocks):
            found = np.concatenate(list(blocks))
        assert len(found) == pytest.approx(info.about * info.sample_rate, abs=2)
        return found

    for start, seconds in ((0, 0.5), (1, 1.25), (2.5, None), (2.5, 9), (0, None)):
        first = round(start * rate)
        expected = whole[first : None if seconds is None else first + round(seconds * rate)]
        np.testing.assert_array_equal(read(start, seconds), expected)
    with pytest.raises(AudioError) as caught:
        read(30)
    expected = "expected a part that begins before the end"
    assert str(caught.value) == f"{path}: found no audio from 30 s on, {expected}"
    if kind == "wav":
        with open(path, "rb") as file:
            monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=file))
            np.testing.assert_array_equal(read(1, 1, name="-"), whole[10_000:20_000])


def test_a_part_of_a_damaged_recording(tmp_path):
    path = tmp_path / "x.wav"
    write_wav(path, _sweep(30_000, 10_000), 10_000)
    path.write_bytes(path.read_bytes()[:60_044])  # half of it
    with audio.recording(path, salvage=True, part=Part(0.5, 0.5)) as (_, blocks):
        assert len(np.concatenate(list(blocks))) == 5_000
    with (
        pytest.raises(AudioError, match="found 0 samples"),
        audio.recording(path, salvage=True, part=Part(2)),
    ):
        pass
    soundfile.write(tmp_path / "x.flac", _sweep(30_000, 10_000), 10_000)
    content = (tmp_path / "x.flac").read_bytes()
    (tmp_path / "x.flac").write_bytes(content[: len(content) // 2])
    with (
        pytest.raises(AudioError, match=r"found no audio from 2\.5 s on"),
        audio.recording(tmp_path / "x.flac", salvage=True, part=Part(2.5)),
    ):
        pass


def test_times_and_bitrates_of_flags():
    seconds, bitrate = separation_flags.seconds_of, separation_flags.bitrate_of
    times = {"90": 90, "0.5": 0.5, ".5": 0.5, "7.": 7, "1:30": 90, "01:02.5": 62.5, "1:00:00": 3600}
    assert {text: seconds("start", text) for text in times} == times
    for text in ("", "-1", "1:", "a", "1:2:3:4", "1e3", "nan", "1.5:00", "1:75", "9" * 400):
        with pytest.raises(ConfigError) as caught:
            seconds("start", text)
        expected = "expected seconds, or a time such as 1:30"
        assert str(caught.value) == f"--start: found {text!r}, {expected}"
    assert bitrate("192k", "mp3") == bitrate("192", "mp3") == 192
    for text in ("63k", "321", "0", "x", "192kb", "19.2"):
        with pytest.raises(ConfigError) as caught:
            bitrate(text, "mp3")
        assert str(caught.value) == f"--bitrate: found {text!r}, expected 64k to 320k in mp3"


def test_names_of_files(tmp_path):
    output = Output({"a": ("a",), "b": ("b",)}, ".mp3", pattern="{track} - {stem}")
    assert output.files("{stem}") == {"a": "{stem} - a.mp3", "b": "{stem} - b.mp3"}
    long = output.written("é" * 200)
    assert len(set(long)) == 2
    assert all(len(os.fsencode(name)) <= 255 and name.endswith(".mp3") for name in long)
    write_wav(tmp_path / "song.wav", _sweep(3_000, 44_100), 44_100)
    output = Output(parse_stems(["bass"], _STEMS), residual=True, pattern="{stem}_{track}")
    separate_file(_Separator(), tmp_path / "song.wav", tmp_path / "out", output)
    assert sorted(os.listdir(tmp_path / "out")) == ["bass_out.wav", "residual_out.wav"]
    for pattern in ("{stem}", "{track}, {stem}!"):
        check_pattern(pattern)
    for pattern in ("", "x", "{track}", "{stem}/{track}", "{stem}{x}", "{stem!r}", ".{stem}"):
        with pytest.raises(ConfigError) as caught:
            check_pattern(pattern)
        assert str(caught.value).startswith(f"--name: found {pattern!r}, expected a file name")


def test_stems_are_chosen_and_summed():
    stems = ("vocals", "drums", "bass", "other")
    assert parse_stems([], stems) == {stem: (stem,) for stem in stems}
    assert parse_stems(["bass", "vocals"], stems) == {"bass": ("bass",), "vocals": ("vocals",)}
    assert parse_stems(["vocals", "accompaniment"], stems) == {
        "vocals": ("vocals",),
        "accompaniment": ("drums", "bass", "other"),
    }
    assert parse_stems(["rhythm=drums+bass"], stems) == {"rhythm": ("drums", "bass")}
    two = ("vocals", "accompaniment")
    assert parse_stems(["accompaniment"], two) == {"accompaniment": ("accompaniment",)}


_EXPECTED = "expected some of vocals, drums, or named sums (NAME=STEM+STEM)"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["voice"], f"found 'voice' in 'voice', {_EXPECTED}"),
        (["a=drums+horn"], f"found 'horn' in 'a=drums+horn', {_EXPECTED}"),
        (["a="], f"found '' in 'a=', {_EXPECTED}"),
        (["vocals=drums"], "found 'vocals=drums', expected a name other than a stem's"),
        (["drums", "drums"], "found 'drums', expected every name once"),
        (["a=drums+drums"], "found 'a=drums+drums', expected every name once"),
        (["../a=drums"], "found the name '../a', expected a file name"),
        (["=drums"], "found the name '', expected a file name"),
        (
            ["residual=drums"],
            "found 'residual=drums', expected another name: --residual uses this one",
        ),
    ],
)
def test_invalid_stems(wanted, message):
    with pytest.raises(ConfigError) as caught:
        parse_stems(wanted, ("vocals", "drums"))
    assert str(caught.value) == f"--stems: {message}"
