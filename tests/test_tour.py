"""The tour, small, on a machine without ffmpeg."""

import json
from pathlib import Path

import numpy as np
import process
import pytest

from data_pipeline.wav import wav_info
from experiments import cli, scoring, tour

_STEMS = {"vocals", "drums", "bass", "other"}


def test_figures_fit_a_terminal():
    scores = {"mixture": -0.001, "scaled": -12.3, "model": 150.0, "irm": None}
    systems = {system: {"sdr": value, "sir": value} for system, value in scores.items()}
    summary = {"tracks": ["test/a"], "metric": scoring.MUSEVAL}
    text = tour.report({"stems": {"vocals": systems}}, summary)
    assert max(map(len, text.splitlines())) <= 80
    row = next(line for line in text.splitlines() if line.startswith("vocals"))
    values = ("0.00", "-12.30", ">100", "none")
    assert row.split()[1:] == [value for value in values for _ in range(2)]


@pytest.mark.slow
def test_tour_ends_with_figures_stems_plots_and_a_saved_model(monkeypatch, capsys, tmp_path):
    root, empty = tmp_path / "tour", tmp_path / "bin"
    empty.mkdir()

    def run_program(name, *arguments):
        done = process.run(name, *arguments, PATH=str(empty))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return 0

    monkeypatch.setattr(cli, "run_program", run_program)
    tour.tour(root, train_tracks=1, test_tracks=1, seconds=2, epochs=1, steps=1)
    stdout = capsys.readouterr().out
    assert "trained only on synthetic audio" in stdout

    summary = json.loads((root / "summary.json").read_text())
    assert summary.keys() == {"stems", "saved_model", "stems_dir", "input", "seconds"}
    assert summary["seconds"] > 0
    assert summary["stems"].keys() == _STEMS
    for systems in summary["stems"].values():
        assert systems.keys() == {"mixture", "scaled", "model", "irm"}
        for scores in systems.values():
            assert scores.keys() == {"sdr", "sir"}
            assert all(isinstance(value, float) and np.isfinite(value) for value in scores.values())
        assert systems["irm"]["sdr"] > systems["scaled"]["sdr"] > systems["mixture"]["sdr"]
        assert systems["irm"]["sdr"] > systems["model"]["sdr"]
        assert systems["irm"]["sir"] > systems["mixture"]["sir"]

    mixture = wav_info(summary["input"])
    for stem in _STEMS:
        info = wav_info(Path(summary["stems_dir"]) / f"{stem}.wav")
        assert info.encoding == "float32"
        assert (info.frames, info.channels, info.sample_rate) == (
            (mixture.frames, mixture.channels, mixture.sample_rate)
        )

    import tensorflow as tf

    separate = tf.saved_model.load(summary["saved_model"]).signatures["serving_default"]
    found = separate(waveform=tf.zeros([1, 1000, 2]))
    assert {stem: tuple(waveform.shape) for stem, waveform in found.items()} == dict.fromkeys(
        _STEMS, (1, 1000, 2)
    )
    assert {path.suffix for path in root.glob("*.*")} == {".json", ".png"}
    # Every place that it names is there.
    for place in stdout.splitlines()[-5:]:
        assert Path(place.split(": ")[-1].split(" (")[0].strip()).exists(), place
