"""The free training set: its list, its sources, its tracks and its checksums."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from data_pipeline import audio
from data_pipeline.audio_writer import write_wav
from experiments import free_music_set
from experiments.free_music_set import listing, singing, sources, speech, tracks
from experiments.free_music_set.build import build
from experiments.free_music_set.checksums import is_close
from experiments.free_music_set.melody import melody
from sccunet.config import ConfigError, UserError

_RATE = 44_100
_PROCESSES = concurrent.futures.ProcessPoolExecutor
_SPEAKERS = {"hedgewars_Mobster", "ktuberling_ru", "tuxpaint_es", "fillets_nl_v"}
_SONGS = {"freedoom2-betwee", "freedoom2-in_cit", "freedoom1-e3m5", "freedoom2-evil"}


# ---- the list


def test_held_out_works_are_never_trained_on():
    found_sources, works = listing.read_listing()
    planned = tracks.planned(works)
    by_split = {
        split: {t.work.name for t in planned if t.split == split} for split in listing.SPLITS
    }
    assert by_split["valid"] == {"caesium", *_SONGS, *_SPEAKERS}
    assert "sodium" in by_split["test"]
    assert len(by_split["test"]) == 11  # and ten of open-songs
    held_out = by_split["valid"] | by_split["test"] | {work.over for work in works.values()}
    assert not held_out & by_split["train"]
    files = {
        name: {checksum for own in work.files.values() for checksum in own.values()}
        for name, work in works.items()
    }
    trained = set().union(*(files[name] for name in by_split["train"]))
    assert not trained & set().union(*(files[name] for name in held_out - {""}))
    for work in works.values():
        for path in (path for own in work.files.values() for path in own):
            assert work.source != "open-songs" or (work.split == "test") == path.startswith("test/")
    paths = [track.path for track in planned]
    assert len({*paths}) == len(paths)
    assert len([work for work in works.values() if work.role == "speech"]) > 50
    table = listing.credits_table(found_sources, list(works.values()))
    assert "| CC0-1.0 | Software-Entwicklungskit | " in table
    assert "| GFDL-1.3-no-invariants-only (share-alike) | Andrey Korotaev" in table


_WORK = {
    "name": "one",
    "source": "here",
    "role": "accompaniment",
    "split": "train",
    "licence": "MIT AND CC-BY-SA-3.0",
    "author": "somebody",
    "files": {"accompaniment": {"a.wav": "0" * 64}},
}


def _listed(path, *works, **more):
    path.write_text(
        json.dumps(
            {
                "sources": {"here": {"about": "a", "licence_files": {"L": "0" * 64}}, **more},
                "works": works,
            }
        )
    )
    return path


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("licence", "", "one: found '', expected a valid licence"),
        ("licence", "MIT AND CC-BY-NC-4.0", "expected a valid licence"),
        ("licence", None, "missing 1 required positional argument: 'licence'"),
        ("author", " ", "one: found ' ', expected a valid author"),
        ("author", None, "missing 1 required positional argument: 'author'"),
        ("source", "there", "expected a valid source"),
        ("role", "drums", "expected a valid role"),
        ("split", "all", "expected a valid split"),
        ("files", {"accompaniment": {}}, "expected a valid files"),
        ("files", {"accompaniment": {"a.wav": "0" * 63}}, "expected a valid SHA-256 of a.wav"),
        ("over", "two", "expected a valid over"),
        ("tempo", 3, "unexpected keyword argument 'tempo'"),
    ],
)
def test_entries_without_what_is_needed_are_refused(field, value, expected, tmp_path):
    wrong = {key: of for key, of in {**_WORK, field: value}.items() if of is not None}
    with pytest.raises(ConfigError, match=r"list\.json") as error:
        listing.read_listing(_listed(tmp_path / "list.json", wrong))
    assert expected in str(error.value)


def test_names_are_unique_and_sources_state_their_licence(tmp_path):
    path = _listed(tmp_path / "list.json", _WORK, {**_WORK, "split": "valid"})
    with pytest.raises(ConfigError, match="found 'one' twice"):
        listing.read_listing(path)
    path = _listed(tmp_path / "list.json", _WORK, bare={"about": "a"})
    with pytest.raises(ConfigError, match=r"bare: found \{\}, expected a valid licence_files"):
        listing.read_listing(path)
    _, works = listing.read_listing(_listed(tmp_path / "list.json", _WORK))
    assert works["one"].is_share_alike


# ---- a tiny set


def _wav(path, samples):
    write_wav(path, np.asarray(samples, np.float64), _RATE, "float32")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _levels(*levels, seconds=0.2):
    """Constant channels."""
    return np.tile(levels, (round(seconds * _RATE), 1))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Writes sources of each kind and their list; returns the arguments of `build`.

    Tracks are made in a thread: new processes would know nothing of what tests replace.
    """
    monkeypatch.setattr(tracks, "_LONGEST", 1)
    thread = concurrent.futures.ThreadPoolExecutor
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", lambda *_, **__: thread(1))
    repository, package = tmp_path / "repository", tmp_path / "sources" / "package"
    for folder in (repository, package):
        folder.mkdir(parents=True)
        (folder / "LICENSE").write_text("free")
    licence = {"LICENSE": hashlib.sha256(b"free").hexdigest()}
    songs = {
        "vocals": {"v.wav": _wav(repository / "v.wav", _levels(0.25))},
        "drums": {
            "d.wav": _wav(repository / "d.wav", _levels(0.125, 0.5)),
            "e.wav": _wav(repository / "e.wav", _levels(0.25, seconds=0.3)),
        },
        "bass": {"b.wav": _wav(repository / "b.wav", _levels(-0.25, 0))},
    }
    git = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e"]
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "m"]):
        subprocess.run([*git, *arguments], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    loud = _wav(tmp_path / "m.wav", _levels(2.0, -1.0, seconds=1.5))
    with zipfile.ZipFile(package / "music.pk3", "w") as archive:
        archive.write(tmp_path / "m.wav", "cd/m.wav")
    music = {"accompaniment": {"music.pk3/cd/m.wav": loud}}
    voice = {f"{i}.wav": _wav(package / f"{i}.wav", _levels(0.1 * i, seconds=0.5)) for i in (1, 2)}
    common = {"licence": "CC0-1.0", "author": "somebody"}
    packaged = {"source": "package", "split": "train", **common}
    song = {"source": "git", "role": "stems", "gain": 0.5, "files": songs, **common}
    works = [
        {"name": "learnt", "split": "train", **song},
        {"name": "kept", "split": "test", **song},
        {"name": "tune", "role": "accompaniment", "files": music, **packaged},
        {"name": "quiet", "role": "accompaniment", "files": music, **packaged, "split": "valid"},
        {"name": "singer", "role": "vocals", "files": {"vocals": voice}, **packaged},
        {"name": "talker", "role": "speech", "takes": 2, "files": {"vocals": voice}, **packaged},
        {"name": "held", "role": "speech", "over": "quiet", "files": {"vocals": voice}, **packaged},
    ]  # fmt: skip
    works[-1]["split"] = "valid"
    found = {
        "git": {"git": str(repository), "commit": head.stdout.strip(), "licence_files": licence},
        "package": {"package": "music", "version": "1", "licence_files": licence},
    }
    path, recorded = tmp_path / "list.json", tmp_path / "recorded.json"
    path.write_text(json.dumps({"sources": found, "works": works}))
    recorded.write_text("{}")
    return tmp_path / "FREE", tmp_path / "sources", path, recorded


@pytest.fixture
def sung(monkeypatch):
    """Replaces the vocoder; returns the speech, speakers and numbers that it was given."""
    given = []

    def take(samples, speaker, number):
        given.append((samples, speaker, number))
        return np.tile([0.5, -0.5], (1000, 1))

    monkeypatch.setattr(singing, "take", take)
    return given


_FILES = {
    "songs/train/learnt": ["accompaniment", "vocals"],
    "songs/test/kept": ["accompaniment", "bass", "drums", "vocals"],
    "songs/valid/held": ["accompaniment", "vocals"],
    "music/train/tune": ["accompaniment"],
    "voices/train/singer": ["vocals"],
    "sung/train/talker_0": ["vocals"],
    "sung/train/talker_1": ["vocals"],
}


def test_the_set_is_built_whole_and_again_only_where_it_is_missing(tiny, sung, capsys):
    folder = tiny[0]
    build(*tiny)
    out = capsys.readouterr().out
    assert "built 7 tracks, kept 0" in out
    assert "0 of 12 files with the recorded checksum, 12 not recorded yet" in out
    for track, files in _FILES.items():
        assert sorted(file.stem for file in (folder / track).iterdir()) == files
    assert sorted(path.name for path in folder.iterdir()) == [
        "checksums.json", "credits.md", "music", "songs", "sung", "voices",
    ]  # fmt: skip
    assert (
        "Debian's music | CC0-1.0 | somebody | tune, quiet," in (folder / "credits.md").read_text()
    )

    # What was built is what the record says, and nothing is built again.
    shutil.copy(folder / "checksums.json", tiny[3])
    shutil.rmtree(folder / "sung/train/talker_1")
    build(*tiny)
    out = capsys.readouterr().out
    assert "built 1 track, kept 6" in out
    assert "12 of 12 files with the recorded checksum:" in out
    assert [(speaker, number) for _, speaker, number in sung] == [
        ("talker", 0), ("held", 0), ("talker", 1), ("talker", 1),
    ]  # fmt: skip


def test_what_the_tracks_contain(tiny, sung):
    build(*tiny)
    folder = tiny[0]

    def read(name):
        samples, rate = audio.read(folder / f"{name}.wav")
        assert rate == _RATE
        return samples

    song = {
        path.stem: read(f"songs/test/kept/{path.stem}")
        for path in (folder / "songs/test/kept").iterdir()
    }
    assert {len(samples) for samples in song.values()} == {round(0.3 * _RATE)}  # of the longest
    np.testing.assert_allclose(song["vocals"][[0, -1]], [[0.125, 0.125], [0, 0]])
    np.testing.assert_allclose(song["drums"][[0, -1]], [[0.1875, 0.375], [0.125, 0.125]])
    np.testing.assert_allclose(song["bass"][0], [-0.125, 0])
    np.testing.assert_array_equal(song["accompaniment"], song["drums"] + song["bass"])
    np.testing.assert_array_equal(read("songs/train/learnt/accompaniment"), song["accompaniment"])

    music = read("music/train/tune/accompaniment")  # its middle, at most at full scale
    assert music.shape == (_RATE, 2)
    np.testing.assert_allclose(music[0], [1, -0.5], atol=1e-4)

    voice = read("voices/train/singer/vocals")  # both, in any order, the louder one at 0.7
    assert voice.shape == (round(2 * (0.5 + 0.1) * _RATE), 1)
    assert set(np.unique(voice.round(3))) == {0, np.float32(0.35), np.float32(0.7)}
    given = sung[0][0]
    assert set(np.unique(given.round(3))) == {0, 0.7}  # each recording is as loud as the others

    vocals, music = read("songs/valid/held/vocals"), read("songs/valid/held/accompaniment")
    assert vocals.shape == music.shape == (1000, 2)
    level = 10 * np.log10(np.mean(vocals**2) / np.mean(music**2))
    assert level == pytest.approx(-3, abs=0.01)
    assert np.abs(vocals + music).max() == pytest.approx(0.95, abs=1e-4)


def test_tracks_are_made_in_worker_processes(tiny, monkeypatch, capsys):
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", _PROCESSES)
    listed = json.loads(tiny[2].read_text())
    listed["works"] = [work for work in listed["works"] if work["role"] != "speech"]
    tiny[2].write_text(json.dumps(listed))
    build(*tiny, jobs=2)
    assert "built 4 tracks, kept 0" in capsys.readouterr().out
    music, _ = audio.read(tiny[0] / "music/train/tune/accompaniment.wav")
    assert len(music) == 1.5 * _RATE  # other processes do not know that this one takes 1 s


def test_tracks_that_cannot_be_written_are_named(tiny, sung):
    (tiny[0] / "songs").mkdir(parents=True)
    (tiny[0] / "songs" / "train").touch()
    (tiny[0] / "voices").touch()
    with pytest.raises(UserError) as error:
        build(*tiny)
    lines = str(error.value).splitlines()
    assert lines == [
        f"{tiny[0]}/songs/train/learnt: cannot be written (File exists)",
        f"{tiny[0]}/voices/train/singer: cannot be written (Not a directory)",
    ]
    assert (tiny[0] / "music" / "train" / "tune").is_dir()


def test_other_files_are_refused_and_the_other_tracks_are_built(tiny, sung, capsys):
    folder, sources_dir = tiny[:2]
    os.replace(sources_dir / "package" / "1.wav", sources_dir / "package" / "2.wav")
    with pytest.raises(UserError) as error:
        build(*tiny)
    lines = str(error.value).splitlines()
    assert len(lines) == 4  # singer, held and both of talker
    assert all("1.wav: found no such file" in s or "2.wav: found the SHA-256" in s for s in lines)
    assert "built 3 tracks" in capsys.readouterr().out
    assert not (folder / "voices").exists()

    (sources_dir / "package" / "LICENSE").write_text("not free")
    with pytest.raises(UserError, match=r"LICENSE: found the SHA-256 .* as in the list of sources"):
        build(*tiny)


def test_other_checksums_pass_if_length_and_level_are_close(tiny, sung, capsys):
    folder, *_, recorded = tiny
    build(*tiny)
    found = json.loads((folder / "checksums.json").read_text())
    name = "songs/test/kept/vocals.wav"
    assert found[name]["samples"] == round(0.3 * _RATE)
    assert found[name]["dbfs"] == pytest.approx(
        20 * np.log10(0.125) + 10 * np.log10(2 / 3), abs=0.01
    )
    changed = {**found[name], "sha256": "0" * 64}
    recorded.write_text(json.dumps({**found, name: {**changed, "dbfs": changed["dbfs"] + 0.9}}))
    build(*tiny)
    assert "11 of 12 files with the recorded checksum, 1 with its length" in capsys.readouterr().out
    recorded.write_text(json.dumps({**found, name: {**changed, "dbfs": changed["dbfs"] + 1.1}}))
    with pytest.raises(
        UserError, match=r"kept/vocals.wav: found 13230 samples at .* expected 13230"
    ):
        build(*tiny)
    assert is_close({"samples": 991, "dbfs": 0}, {"samples": 1000, "dbfs": 0})
    assert not is_close({"samples": 989, "dbfs": 0}, {"samples": 1000, "dbfs": 0})


# ---- sources


def test_missing_sources_say_how_to_get_them(tiny, tmp_path, monkeypatch):
    folder, sources_dir, path, _ = tiny
    shutil.rmtree(sources_dir)
    found = json.loads(path.read_text())
    found["sources"]["git"]["commit"] = "1" * 40
    found["sources"]["by_hand"] = {"about": "some songs", "licence_files": {"L": "0" * 64}}
    path.write_text(json.dumps(found))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # no programs but git
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(shutil.which("git", path=os.defpath + ":/usr/local/bin"))
    with pytest.raises(UserError) as error:
        build(*tiny)
    lines = str(error.value).splitlines()
    repository = tmp_path / "repository"
    assert f"{sources_dir}/git: cannot be downloaded (" in lines[0]
    assert f"): git clone {repository}, commit 11111111 there" in lines[0]
    assert lines[1:] == [
        f"{sources_dir}/package: cannot be downloaded (no apt-get here): unpack Debian's package"
        " music 1 (dpkg-deb -x) there",
        f"{sources_dir}/by_hand: found no such folder, expected some songs",
    ]
    assert not folder.exists()
    assert not list(sources_dir.glob("*"))  # nothing half-done

    sources_dir.rmdir()
    sources_dir.touch()
    with pytest.raises(UserError, match=r"sources/git: cannot be written \(File exists\)"):
        build(*tiny)


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_only_the_named_files_of_a_package_are_unpacked(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    for path in ("DEBIAN/control", "usr/a.ogg", "usr/b.ogg"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(path)
    (tree / "DEBIAN/control").write_text(
        "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m <m@m>\nDescription: d\n"
    )
    package = tmp_path / "p.deb"
    build_it = ["dpkg-deb", "-Znone", "--build", str(tree), str(package)]
    subprocess.run(build_it, check=True, capture_output=True)
    apt_get = tmp_path / "bin" / "apt-get"
    apt_get.parent.mkdir()
    apt_get.write_text(f'#!/bin/sh\n[ "$*" = "download p" ] && cp {package} .\n')
    apt_get.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt_get.parent}{os.pathsep}{os.environ['PATH']}")
    source = listing.Source("here", package="p")
    sources.get(source, tmp_path / "out", {"usr/a.ogg"})
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["a.ogg"]
    # Another run finishes the same source meanwhile.
    faster = tmp_path / "faster"
    apt_get.write_text(f"#!/bin/sh\ncp {package} . && mkdir {faster} && touch {faster}/c.ogg\n")
    sources.get(source, faster, {"usr/a.ogg"})
    assert [path.name for path in faster.iterdir()] == ["c.ogg"]
    (tmp_path / "broken.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(subprocess.CalledProcessError):
        sources.unpack(tmp_path / "broken.deb", tmp_path / "out", set())


# ---- speech, melodies and singing


def test_silence_is_trimmed_and_recordings_are_joined_until_there_are_enough():
    loud, silence = np.full(_RATE, 0.5), np.zeros(_RATE)
    trimmed = speech.trimmed(np.concatenate([silence, loud, silence]))
    assert len(trimmed) == pytest.approx(_RATE * 1.05 + 6000, abs=5)
    assert not len(speech.trimmed(silence))
    assert not len(speech.trimmed(loud[:4000]))
    assert not len(speech.joined([silence, loud[:100]], even=True))
    taken = []
    recordings = (taken.append(i) or loud * (i + 1) / 10 for i in range(9))
    joined = speech.joined(recordings, even=False, seconds=2.5)
    assert taken == [0, 1, 2]
    assert len(joined) == round(3 * 1.1 * _RATE)
    np.testing.assert_allclose(
        joined[[0, round(1.05 * _RATE), -1 - round(0.5 * _RATE)]], [0.7 / 3, 0, 0.7]
    )
    names = [f"{i}.ogg" for i in range(50)]
    assert sorted(speech.shuffled("a", names)) == sorted(names)
    assert [*speech.shuffled("a", names)] == [*speech.shuffled("a", names[::-1])]
    assert [*speech.shuffled("a", names)] != [*speech.shuffled("b", names)]


def test_melodies_stay_in_a_scale_around_the_voice():
    for seed in range(20):
        tune = melody(np.random.default_rng(seed), 60, 30)
        assert 30 <= sum(tune.seconds) < 60
        assert tune.places[-1] is None
        notes = [note for note, _ in tune.notes() if note is not None]
        assert set(notes) <= {*tune.scale}
        assert len({*notes}) > 1
        assert max(abs(note - 60) for note in notes) <= 20  # six steps of five in an octave
        for (low, _), (high, _) in zip(tune.notes(), tune.notes(2), strict=True):
            assert low is None or (high in tune.scale and 2 <= high - low <= 7)
    again = melody(np.random.default_rng(19), 60, 30)
    assert (again.places, again.seconds) == (tune.places, tune.seconds)


def _vowels(seconds, hertz=110):
    """Pulses through one resonance, in syllables of a third of a second."""
    time = np.arange(round(seconds * _RATE)) / _RATE
    harmonics = np.arange(1, 60) * hertz
    levels = 1 / (1 + ((harmonics - 700) / 300) ** 2)
    tone = (levels[:, None] * np.sin(2 * np.pi * harmonics[:, None] * time)).sum(axis=0)
    return 0.1 * tone * np.abs(np.sin(3 * np.pi * time))


def test_speech_is_sung_on_the_given_notes():
    pytest.importorskip("pyworld")
    voice = singing.analysed(_vowels(2.4))
    assert 5 <= len(voice.syllables) <= 9
    assert np.median(voice.f0[voice.f0 > 0]) == pytest.approx(110, rel=0.01)
    rng = np.random.default_rng(0)
    notes = [(57, 0.6), (None, 0.3), (64, 0.6)]  # 220 Hz, a rest, 329.6 Hz
    song = singing.sing(singing.spoken_to(voice, notes), notes, rng, vibrato=0, formants=1)
    assert len(song) == pytest.approx(1.5 * _RATE, rel=0.02)
    for first, expected in ((0.15, 220), (1.05, 329.63)):
        part = song[round(first * _RATE) :][: _RATE * 3 // 10] * np.hanning(_RATE * 3 // 10)
        spectrum = np.abs(np.fft.rfft(part, 8 * _RATE))
        found = np.argmax(spectrum[8 * 150 : 8 * 450]) / 8 + 150  # the fundamental's octave
        assert found % expected == pytest.approx(0, abs=6) or expected - found % expected < 6
    rest = song[round(0.68 * _RATE) : round(0.85 * _RATE)]
    assert np.sqrt(np.mean(rest**2)) < 0.01 * np.sqrt(np.mean(song**2))
    assert singing.analysed(np.zeros(_RATE) + 1e-5 * rng.standard_normal(_RATE)) is None
    assert singing.take(_vowels(0.5), "nobody", 0).shape == (0, 2)


def test_a_verse_has_the_noise_of_its_frames():
    """Aperiodicity that is computed for them alone, against that of all frames."""
    pyworld = pytest.importorskip("pyworld")
    breath = np.random.default_rng(0).standard_normal(round(2.4 * _RATE))
    voice = singing.analysed(_vowels(2.4) + np.linspace(0, 0.01, len(breath)) * breath)
    whole = pyworld.d4c(voice.speech, voice.f0, 0.005 * np.arange(len(voice.f0)), _RATE)
    frames, unvoiced = singing._stretched(voice.f0, voice.syllables[-1], 120)
    voice = dataclasses.replace(voice, syllables=voice.syllables[-1:])
    verse = singing.spoken_to(voice, [(57, 0.6)])
    expected = whole[frames]
    expected[~unvoiced] = gaussian_filter1d(expected, 1.5, axis=0)[~unvoiced]
    np.testing.assert_allclose(verse.noise, expected, atol=0.01)


def test_the_files_of_the_set_are_in_the_package():
    folder = os.path.dirname(free_music_set.__file__)
    assert {"sources.json", "checksums.json"} <= {*os.listdir(folder)}
