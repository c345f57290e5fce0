"""The demo: its song, and the separation of it and of a user's file."""

import os

import numpy as np
import pytest

from data_pipeline import audio, tags
from data_pipeline.audio_writer import write_wav
from experiments import cli, demo, recordings
from sccunet import runs
from sccunet.config import Config, ConfigError
from sccunet.portable import CARD


def test_the_song_is_short_and_states_its_licence():
    samples, rate = audio.read(recordings.SODIUM)
    assert (samples.shape, rate) == ((25 * 44_100, 2), 44_100)
    assert 0.3 < np.abs(samples).max() < 0.9
    edges = np.abs(samples[[*range(40), *range(-40, 0)]])
    assert edges.max() < 0.01  # no clicks at its ends
    content = recordings.SODIUM.read_bytes()
    assert len(content) < 500_000
    assert b"LICENSE=CC0 1.0" in content[:4096]
    # A title would have to be copied to the stems, for which the light installation has no package.
    assert not tags.has_tags(recordings.SODIUM)
    text = recordings.SODIUM.with_suffix(".txt").read_text()
    assert "CC0 1.0" in text
    assert "ichbinsoftware/everythingisremixed" in text


def test_levels_are_against_the_mixture(tmp_path):
    powers = {}
    for name, level in {"mixture": 0.5, "vocals": 0.25, "rest": 0.0}.items():
        # Longer than a block; the second channel is silent.
        samples = np.full((100_000, 2), level) * [1, 0]
        write_wav(tmp_path / f"{name}.wav", samples, 8000, "float32")
        powers[name] = demo.power(tmp_path / f"{name}.wav")
    assert powers == {"mixture": 0.125, "vocals": 0.03125, "rest": 0.0}
    text = demo.report(powers.pop("mixture"), powers)
    assert text.splitlines() == ["  -6.0 dB  vocals", "   silent  rest"]
    assert demo.report(0.0, {"vocals": 1.0}) == "   silent  vocals"


def test_it_separates_the_song_with_the_model_that_ships(program, tmp_path):
    model, folder = runs.shipped_model(), tmp_path / "out"
    (folder / "sodium").mkdir(parents=True)  # of an earlier run
    done = program("demo", f"--demo_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    _, command, *_, title, vocals, accompaniment, last = done.stdout.splitlines()
    assert command == f"$ sccunet separate --output_dir={folder} --overwrite {recordings.SODIUM}"
    assert title.startswith("sodium.ogg: separated in ")
    assert last == f"model: {model / CARD}"
    # The true ones are at -4.0 and -2.1 dB.
    for line, stem, least in ((vocals, "vocals", -15), (accompaniment, "accompaniment", -5)):
        level, file = line.split(" dB  ")
        assert least < float(level) < 0
        assert file == str(folder / "sodium" / f"{stem}.wav")
        assert audio.probe(file).seconds == 25


def test_it_passes_the_model_on_and_fails_as_separate_does(monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text(Config().to_json())
    started = []
    monkeypatch.setattr(cli, "run_program", lambda *line: started.append(line) or 3)
    with pytest.raises(SystemExit) as caught:
        demo.demo(recordings.SODIUM, tmp_path / "demo", str(tmp_path))
    assert caught.value.code == 3
    assert started[0][:2] == ("separate", f"--model={tmp_path}")


def test_mistakes_are_told_before_anything_is_written(monkeypatch, refusal, program, tmp_path):
    missing = tmp_path / "song.mp3"
    for song in (missing, tmp_path):
        with pytest.raises(ConfigError, match=f"{song}: found no such file"):
            demo.demo(song, tmp_path / "demo")
    monkeypatch.setattr(runs, "_SHIPPED", tmp_path / "models")
    with pytest.raises(ConfigError, match="no model ships with this installation"):
        demo.demo(recordings.SODIUM, tmp_path / "demo")
    assert refusal(program("demo", "a.mp3", "b.mp3")) == "FILE: found 2, expected one recording"
    assert os.listdir(tmp_path) == []
