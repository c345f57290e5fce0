"""The demo: its song, and the separation of it and of a user's file."""

import os

import numpy as np
import pytest

from data_pipeline import audio, tags
from data_pipeline.audio_writer import write_wav
from experiments import demo, recordings
from sccunet import runs
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.portable import CARD

_CONFIG = Config(
    model=ModelConfig(
        stems=("vocals", "rest"),
        sample_rate=8000,
        frame_length=256,
        hop_length=64,
        patch_samples=4096,
        filters=(4, 8),
    ),
    sources={"rest": ("drums", "bass", "other")},
)


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


def test_it_separates_the_song_and_says_where_the_stems_are(
    program, make_portable, randomise, tmp_path
):
    model = make_portable(tmp_path / "model", _CONFIG, randomise)
    (model / CARD).write_text("")
    folder = tmp_path / "out"
    (folder / "sodium").mkdir(parents=True)  # of an earlier run
    done = program("demo", f"--model={model}", f"--demo_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    lines = done.stdout.splitlines()
    assert f"$ sccunet separate --model={model} --output_dir={folder} --overwrite" in lines[1]
    assert lines[-4].startswith("sodium.ogg: separated in ")
    assert lines[-1] == f"model: {model / CARD}"
    for line, stem in zip(lines[-3:-1], _CONFIG.model.stems, strict=True):
        level, file = line.rsplit(" ", 1)
        assert file == str(folder / "sodium" / f"{stem}.wav")
        assert audio.probe(file).seconds == 25
        assert -100 < float(level.removesuffix("dB ")) < 100


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
