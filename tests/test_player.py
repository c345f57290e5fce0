"""The stem player's server, as its page and as strangers ask it; the page: test_player_page.py."""

import contextlib
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from player_server import Player, running, wait_for
from process import ROOT

from data_pipeline import audio
from data_pipeline.audio_writer import write_wav
from data_pipeline.errors import AudioError
from experiments import recordings
from experiments.playing import downloads, models, pictures, service, songs, sources
from experiments.playing.security import OnlyOwnPage
from experiments.playing.tracks import Tracks
from experiments.separating.output import Output, parse_stems
from experiments.separating.recording import separate_file
from sccunet import runs
from sccunet.checks import UserError
from sccunet.config import Config, ConfigError
from sccunet.model_card import About, model_card, read_about
from sccunet.separation import Separator

HOST_ONLY = "127.0.0.1"  # without the port: another server on this machine
_STATIC = ROOT / "experiments" / "playing" / "static"


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """A WAV of a second and a half of a real song."""
    path = tmp_path_factory.mktemp("song") / "song.wav"
    samples, rate = audio.read(recordings.SODIUM)
    write_wav(path, samples[: 3 * rate // 2], rate)
    return path


@pytest.fixture(scope="module")
def player(tmp_path_factory):
    with running(tmp_path_factory.mktemp("player"), max_bytes=1 << 20) as found:
        yield found
    assert not [*found.folder.glob("sccunet-player-*")]


@pytest.fixture
def gate(monkeypatch):
    """An event that each separation waits for after its first block."""
    event, stream = threading.Event(), Separator.stream

    def slow(self, *arguments):
        for block in stream(self, *arguments):
            yield block
            assert event.wait(300)

    monkeypatch.setattr(Separator, "stream", slow)
    yield event
    event.set()


def test_only_its_own_page_is_answered(player):
    own = urllib.parse.urlsplit(player.address)
    assert player.ask("")[0] == player.ask("", Origin=f"http://{own.netloc}")[0] == 200
    assert player.ask("", Host=f"localhost:{own.port}")[0] == 200
    refused = [
        *({"root": root} for root in ("/", "", own.path[:-2] + "/", "/about", own.path.upper())),
        *({"Host": host} for host in ("", "evil.example", f"evil.example:{own.port}", HOST_ONLY)),
        *({"Host": f"{name}:{own.port}"} for name in ("10.0.0.1", "127.0.0.1@x", "localhost.x")),
        *({"Origin": name} for name in ("null", "http://evil.example", f"https://{own.netloc}")),
        {"Origin": f"http://{own.hostname}"},
    ]
    for how in refused:
        for path, method in (("", "GET"), ("about", "GET"), ("songs", "POST")):
            status, content = player.ask(path, method, **how)
            assert (status, content[:9]) == (403, b"Refused: "), (how, path, content)
    for path in ("../", "..%2f", "%2e%2e/player.py", "../server.py", "..%5cserver.py", "//etc"):
        assert player.ask(path)[0] in (403, 404), path


def test_hosts_when_served_to_others():
    def accepts(host, asked):
        return OnlyOwnPage(None, "token", host, 8000)._is_own(asked)

    assert accepts("0.0.0.0", "192.168.1.7:8000")
    assert accepts("::", "[fe80::1]:8000")
    assert accepts("studio.local", "Studio.local:8000")
    assert not accepts("0.0.0.0", "evil.example:8000")
    assert not accepts("192.168.1.7", "192.168.1.8:8000")
    assert not accepts("0.0.0.0", "192.168.1.7:80")
    assert OnlyOwnPage(None, "token", "0.0.0.0", 80)._is_own("192.168.1.7")


def test_answers_may_not_be_embedded_or_kept(player):
    with urllib.request.urlopen(player.address) as answer:
        headers = answer.headers
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"


def test_the_page_is_short_and_needs_no_network():
    files = sorted(_STATIC.iterdir())
    assert [file.name for file in files] == ["index.html", "player.css", "player.js", "sound.js"]
    assert sum(len(file.read_text().splitlines()) for file in files) <= 500
    for file in files:
        assert not re.search(r"https?://|@import|//cdn", file.read_text()), file
        assert max(map(len, file.read_text().splitlines())) <= 100, file


def test_stems_are_those_of_separate(player, song, tmp_path):
    about = json.loads(player.ask("about")[1])
    [model] = about["models"]
    stems = runs.load_config(runs.shipped_model()).model.stems
    card = read_about((runs.shipped_model() / runs.CARD).read_text())
    assert tuple(model["stems"]) == stems
    assert model["rows"]["Licence"] == card.licence
    assert model["rows"]["Trained on"] == card.training_data
    separate_file(Separator.load(), song, tmp_path / "song", Output(parse_stems([], stems)))

    key = player.send(song.read_bytes(), "../../a song.mp3")
    state = player.state(key, "done", "failed")
    assert state["tracks"] == ["mixture", *stems]
    assert (state["name"], state["message"]) == ("../../a song.mp3", "")
    mixture, rate = audio.read(song)
    truths = [mixture, *(audio.read(tmp_path / "song" / f"{stem}.wav")[0] for stem in stems)]
    assert state["frames"] == state["total"] == len(mixture)
    for track, truth in enumerate(truths):
        status, content = player.ask(f"songs/{key}/stem.wav?track={track}")
        assert status == 200
        (tmp_path / "got.wav").write_bytes(content)
        found, found_rate = audio.read(tmp_path / "got.wav")
        np.testing.assert_array_equal(found, truth)
        assert found_rate == rate
    with zipfile.ZipFile(io.BytesIO(player.ask(f"songs/{key}/stems.zip")[1])) as file:
        assert file.testzip() is None
        assert file.namelist() == [f"{stem}.wav" for stem in stems]
        (tmp_path / "got.wav").write_bytes(file.read(f"{stems[0]}.wav"))
    np.testing.assert_array_equal(audio.read(tmp_path / "got.wav")[0], truths[1])

    samples = player.ask(f"songs/{key}/samples?start=1000&frames=500")[1]
    planes = np.frombuffer(samples, np.float32).reshape(3, 2, 500)
    np.testing.assert_array_equal(planes, [truth[1000:1500].T for truth in truths])

    mix = player.ask(f"songs/{key}/mix.wav?gains=0.5,1&pans=0,1")[1]
    (tmp_path / "mix.wav").write_bytes(mix)
    left = 0.5 * truths[1][:, 0]
    right = 0.5 * truths[1][:, 1] + truths[2].sum(axis=1)
    found = audio.read(tmp_path / "mix.wav")[0]
    np.testing.assert_allclose(found, np.stack([left, right], axis=1), atol=1e-6)

    again = json.loads(player.ask(f"songs/{key}/again?mask=soft", "POST")[1])["key"]
    assert player.state(again, "done", "failed")["choice"] == [0, "soft"]
    assert player.ask(f"songs/{key}/stems.zip")[0] == 404
    assert player.ask(f"songs/{again}", "DELETE")[0] == 204
    assert player.files() == []


def test_bad_files_and_requests_are_sentences(player, song):
    key = player.send(b"no sound, only words", "a <b>note</b>.txt")
    state = player.state(key, "failed")
    assert re.fullmatch(r"a <b>note</b>\.txt: found .*, expected .*\.", state["message"])
    player.ask(f"songs/{key}", "DELETE")
    key = player.send(song.read_bytes()[:200_000], "cut.wav")
    state = player.state(key, "done", "failed")
    assert state["state"] == "done"
    assert state["message"].startswith("cut.wav: found 1.13 s of audio (truncated")
    for path, words in {
        "samples?start=-1&frames=5": "start: found '-1', expected 0 to ",
        "samples?start=0&frames=99999999": "frames: found '99999999', expected 1 to 262144",
        "stem.wav?track=9": "track: found '9', expected 0 to 2",
        "stem.wav": "track: found None, expected 0 to 2",
        "mix.wav?gains=1&pans=0,0": "gains: found '1', expected 2 numbers",
        "mix.wav?gains=1,nan&pans=0,0": "Found a mix that no faders give",
        "waveform.png?track=0&frames=9&columns=0": "columns: found '0'",
    }.items():
        status, content = player.ask(f"songs/{key}/{path}")
        assert (status, content.decode()[: len(words)]) == (400, words)
    assert player.ask("songs?mask=loud", "POST", b"x")[0] == 400
    assert player.ask("songs?model=7", "POST", b"x")[0] == 400
    assert player.ask("songs/given", "POST")[0] == 404
    player.ask(f"songs/{key}", "DELETE")
    assert player.files() == []


def test_files_that_are_too_large_are_refused(player):
    most = 1 << 20
    for body in (bytes(most + 1), iter([bytes(most), b"x"])):
        with contextlib.suppress(ConnectionError):  # it may end while more is sent
            status, content = player.ask("songs?name=long.wav", "POST", body)
            assert status == 413
            assert content == b"long.wav: found a larger file, expected at most 1 MiB."
    assert player.files() == []


def test_songs_wait_for_their_turn(player, song, gate):
    content = song.read_bytes()

    def send(number):
        return player.ask(f"songs?name={number}.wav", "POST", content)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))
    keys = [json.loads(text)["key"] for status, text in answers if status == 201]
    refused = [text.decode() for status, text in answers if status == 503]
    assert (len(keys), len(refused)) == (16, 4)
    assert re.fullmatch(r"\d+\.wav: found 16 other songs here, expected fewer; .*", refused[0])
    wait_for(lambda: any(player.state(key)["frames"] for key in keys), "no stems")
    states = {key: player.state(key) for key in keys}
    assert sorted(state["ahead"] for state in states.values()) == [*range(16)]
    [working] = [key for key, state in states.items() if state["state"] == "working"]
    frames = states[working]["frames"]
    assert 0 < frames < states[working]["total"]  # which can be played
    samples = player.ask(f"songs/{working}/samples?start=0&frames={frames + 9}")[1]
    assert len(samples) == 4 * 3 * 2 * frames
    assert player.ask(f"songs/{working}/stems.zip")[0] == 409
    player.ask(f"songs/{working}", "DELETE")
    gate.set()
    keys.remove(working)
    assert player.state(keys[-1], "done", "failed")["state"] == "done"
    for key in keys:
        assert player.ask(f"songs/{key}", "DELETE")[0] == 204
    wait_for(lambda: player.files() == [], "files are left")


def test_a_closed_page_ends_its_work(player, song, gate, monkeypatch):
    key = player.send(song.read_bytes())
    with player.shown(key) as states:
        monkeypatch.setattr(songs, "LEFT_UNFINISHED", 0.5)
        assert next(state for state in states if state["frames"])["state"] == "working"
        wait_for(lambda: player.files(), "no files")
    wait_for(lambda: player.ask(f"songs/{key}/stems.zip")[0] == 404, "it goes on")
    gate.set()
    wait_for(lambda: player.files() == [], "files are left")
    monkeypatch.setattr(songs, "LEFT_UNFINISHED", 600.0)
    key = player.send(song.read_bytes())
    player.state(key, "done")
    monkeypatch.setattr(songs, "LEFT_UNFINISHED", 0.0)
    assert player.state(key)["state"] == "done"  # a finished one is kept for an hour
    monkeypatch.setattr(songs, "LEFT_FINISHED", 0.0)
    wait_for(lambda: player.files() == [], "files are left")


def test_a_folder_of_stems_is_played_as_it_is(tmp_path):
    rng = np.random.default_rng(0)
    noise = {name: rng.uniform(-0.4, 0.4, (n, 1)) for name, n in (("a", 40_000), ("b", 50_000))}
    for name, samples in noise.items():
        write_wav(tmp_path / "stems" / f"{name}.wav", samples, 8000, "float32")
    (tmp_path / "temporary").mkdir()
    with running(tmp_path / "temporary", given=tmp_path / "stems") as player:
        assert json.loads(player.ask("about")[1])["given"] == "stems"
        key = json.loads(player.ask("songs/given", "POST")[1])["key"]
        state = player.state(key, "done", "failed")
        assert (state["tracks"], state["choice"]) == (["mixture", "a", "b"], None)
        assert state["frames"] == 50_000
        content = player.ask(f"songs/{key}/samples?start=39990&frames=20")[1]
        assert player.ask(f"songs/{key}/again", "POST")[0] == 400
    planes = np.frombuffer(content, np.float32).reshape(3, 2, 20)
    first = np.pad(noise["a"], ((0, 10_000), (0, 0)))[39_990:40_010, 0].astype(np.float32)
    second = noise["b"][39_990:40_010, 0].astype(np.float32)
    truths = np.stack([first + second, first, second])
    np.testing.assert_array_equal(planes, truths[:, None].repeat(2, axis=1))
    assert sorted(os.listdir(tmp_path / "stems")) == ["a.wav", "b.wav"]

    write_wav(tmp_path / "stems" / "mixture.wav", noise["b"], 8000, "float32")
    with sources.folder_of_stems(tmp_path / "stems") as source:
        mixture = np.concatenate([blocks[0] for blocks in source.blocks])
    assert source.names == ["mixture", "a", "b"]
    np.testing.assert_array_equal(mixture, noise["b"].astype(np.float32))
    write_wav(tmp_path / "stems" / "c.wav", noise["b"], 9000)
    expected = "found 9000 Hz and 1 channel, expected 8000 Hz and 1"
    with pytest.raises(AudioError, match=expected), sources.folder_of_stems(tmp_path / "stems"):
        pass


def test_pictures_show_what_is_there(tmp_path):
    tracks = Tracks(tmp_path, ["mixture", "a"], 8000, 2)
    tone = np.sin(2 * np.pi * 1000 / 8000 * np.arange(16_000))[:, None].repeat(2, axis=1)
    for start in (0, 999, 9000):
        part = tone[start : {0: 999, 999: 9000}.get(start)].astype(np.float32)
        tracks.append([0 * part, part * (start > 0)])
    tracks.finish()
    assert tracks.frames == 16_000
    np.testing.assert_array_equal(tracks.peaks(0, 16_000, 10), 0)
    np.testing.assert_array_equal(tracks.peaks(1, 32_768, 8), [255] * 4 + [0] * 4)
    np.testing.assert_array_equal(tracks.peaks(1, 16_000, 16), [0, *[255] * 15])
    ink = pictures.waveform(np.array([255, 0, 128], np.uint8), 10)
    assert ink.shape == (10, 9)
    assert [(column > 0).sum() for column in ink.T] == [10, 10, 0, 2, 2, 0, 6, 6, 0]
    levels = pictures.spectrogram(tracks, 1, 32_000, 8, 96)
    edges = np.geomspace(40, 4000, 97)
    row = 95 - levels[:, 2].argmax()
    assert edges[row] <= 1000 <= edges[row + 1]
    assert levels[:, 2].max() > 250  # full scale
    assert not levels[:, 5:].any()
    content = pictures.png(levels, (255, 0, 9))
    at = content.index(b"IDAT")
    size = struct.unpack(">I", content[at - 4 : at])[0]
    lines = np.frombuffer(zlib.decompress(content[at + 4 : at + 4 + size]), np.uint8)
    np.testing.assert_array_equal(lines.reshape(96, 9)[:, 1:], levels)


def test_long_wavs_are_rf64():
    head = downloads.wav_head(2**29, 2, 44_100)
    assert head[:4] == b"RF64"
    assert struct.unpack_from("<QQQ", head, 20) == (2**32 + len(head) - 8, 2**32, 2**29)
    assert len(downloads.wav_head(1000, 2, 44_100)) == 44


def test_panning_follows_the_web_audio_api():
    block = np.array([[0.5, 0.25]], np.float32)
    for pan, expected in ((-1, [0.75, 0]), (0, [0.5, 0.25]), (1, [0, 0.75])):
        np.testing.assert_allclose(downloads.panned(block, pan), [expected], atol=1e-7)
    half = np.sqrt(0.5)
    found = downloads.panned(block, 0.5)
    np.testing.assert_allclose(found, [[0.5 * half, 0.25 + 0.5 * half]], atol=1e-7)
    five = np.arange(5, dtype=np.float32)[None]
    np.testing.assert_array_equal(downloads.stereo(five), [[2, 2]])


def test_models_and_their_cards(tmp_path):
    config = Config()
    about = About("Songs | of mine.", "CC BY 4.0, as | agreed", "| a | b |")
    assert read_about(model_card("m", config, about, 1, "float32")) == about
    assert read_about("# another card") == About()
    (tmp_path / "config.json").write_text(config.to_json())
    (tmp_path / "network.tflite").write_bytes(b"")
    assert models.offered([str(tmp_path)]) == [tmp_path, *runs.shipped_models()]
    assert models.offered([runs.DEFAULT]) == models.offered([]) == runs.shipped_models()
    assert models.described(tmp_path)["rows"]["Licence"] == "not stated"
    with pytest.raises(ConfigError, match="found no such folder"):
        models.offered([str(tmp_path / "none")])
    assert [*models.masks()][:2] == ["none", "soft"]


def test_a_full_disk_is_told_before_the_work(tmp_path, song, monkeypatch):
    monkeypatch.setattr(songs.shutil, "disk_usage", lambda _: type("", (), {"free": 10}))
    waiting = songs.Song("x.wav", tmp_path, song, (0, "none"))
    with pytest.raises(UserError, match=r"x\.wav: found 0\.0 GB free for its tracks, expected 0"):
        waiting.run(models.Separators([runs.shipped_model()]))


def test_an_address_that_is_taken_is_one_line(player):
    port = urllib.parse.urlsplit(player.address).port
    expected = f"cannot listen at 127.0.0.1:{port}"
    with (
        pytest.raises(UserError, match=expected),
        service.prepared([], None, 1, "127.0.0.1", port),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_takes_its_files_with_it(tmp_path, song, number):
    """Interrupted amid a separation."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "import runpy; runpy.run_module('experiments.player', run_name='__main__')"
    with subprocess.Popen(
        [sys.executable, "-c", code, "--nobrowser", f"{song}"],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running_program:  # fmt: skip
        first = running_program.stdout.readline()
        found = Player(
            re.fullmatch(r"player: (http://127\.0\.0\.1:\d+/\S{22}/)\n", first)[1], tmp_path
        )
        assert running_program.stdout.readline() == "Ctrl-C ends it\n"
        wait_for(lambda: _answers(found), "no answer")
        key = json.loads(found.ask("songs/given", "POST")[1])["key"]
        with found.shown(key) as states:
            next(states)
            assert len(os.listdir(tmp_path)) == 1
            running_program.send_signal(number)
            out, err = running_program.communicate(timeout=300)
    assert (running_program.returncode, out, err) == (0, "", "")
    assert os.listdir(tmp_path) == []


def _answers(player):
    try:
        return player.ask("about")[0] == 200
    except OSError:
        return False


def test_mistakes_are_told_at_once(refusal, program, tmp_path):
    assert refusal(program("player", "a", "b")) == (
        "FILE: found 2, expected one recording or folder of stems"
    )
    missing = tmp_path / "none.wav"
    assert refusal(program("player", missing)).startswith(f"{missing}: found no such file")
