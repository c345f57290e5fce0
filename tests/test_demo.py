"""The demo: its song, and the separation of it and of a user's file."""

import os
import re

import numpy as np
import pytest

from data_pipeline import audio, tags
from data_pipeline.audio_writer import write_wav
from experiments import cli, demo, recordings
from sccunet import runs
from sccunet.config import Config, ConfigError
from sccunet.runs import CARD


def test_the_song_and_its_stems_are_short_and_state_their_licence():
    size, read = 0, []
    for file in (recordings.SODIUM, *recordings.SODIUM_STEMS.values()):
        samples, rate = audio.read(file)
        assert (samples.shape, rate) == ((25 * 44_100, 2), 44_100)
        assert 0.3 < np.abs(samples).max() < 0.9
        edges = np.abs(samples[[*range(40), *range(-40, 0)]])
        assert edges.max() < 0.01  # no clicks at its ends
        content = file.read_bytes()
        assert b"LICENSE=CC0 1.0" in content[:4096]
        # A title would have to be copied to the stems, for which the light installation has no
        # package.
        assert not tags.has_tags(file)
        size += len(content)
        read.append(samples)
    assert size < 1_000_000
    mixture, *stems = read
    noise = np.square(mixture - sum(stems)).sum() / np.square(mixture).sum()
    assert 10 * np.log10(noise) < -17  # that of coding
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


def test_scores_of_stems_with_true_ones(tmp_path):
    levels = {"song": 0.75, "true": 0.5, "vocals": 0.4, "drums": 0.1}
    for name, level in levels.items():
        write_wav(tmp_path / f"{name}.wav", np.full((1000, 2), level), 8000, "float32")
    song, true, vocals, drums = (tmp_path / f"{name}.wav" for name in levels)
    files = {"vocals": vocals, "drums": drums}
    line = "vocals: SDR 14.0 dB (the mixture in its place: 6.0 dB)"
    assert demo.scores(song, {"vocals": true, "accompaniment": true}, files) == [line]


def test_it_separates_the_song_with_the_model_that_ships(program, tmp_path):
    model, folder = runs.shipped_model(), tmp_path / "out"
    (folder / "sodium").mkdir(parents=True)  # of an earlier run
    done = program("demo", f"--demo_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    _, command, *_, title, vocals, accompaniment, sdr1, sdr2, last = done.stdout.splitlines()
    assert command == f"$ sccunet separate --output_dir={folder} --overwrite {recordings.SODIUM}"
    assert title.startswith("sodium.ogg: separated in ")
    assert last == f"model: {model / CARD}"
    # The true ones are at -4.0 and -2.1 dB.
    for line, scored, stem, least in (
        (vocals, sdr1, "vocals", -15),
        (accompaniment, sdr2, "accompaniment", -5),
    ):
        level, file = line.split(" dB  ")
        assert least < float(level) < 0
        assert file == str(folder / "sodium" / f"{stem}.wav")
        assert audio.probe(file).seconds == 25
        ours, mixture = map(float, re.findall(r"(-?\d+\.\d) dB", scored))
        assert scored.startswith(f"{stem}: SDR ")
        assert ours > mixture + 3


def test_it_passes_the_model_on_and_fails_as_separate_does(monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text(Config().to_json())
    started = []
    monkeypatch.setattr(cli, "run_program", lambda *line: started.append(line) or 3)
    with pytest.raises(SystemExit) as caught:
        demo.demo(recordings.SODIUM, tmp_path / "demo", str(tmp_path))
    assert caught.value.code == 3
    assert started[0][:2] == ("separate", f"--model={tmp_path}")
    with pytest.raises(SystemExit):
        demo.demo(recordings.SODIUM, tmp_path / "demo", runs.DEFAULT)
    assert started[1][:2] == ("separate", f"--model={runs.DEFAULT}")


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
