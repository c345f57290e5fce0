"""The program ablate: its report, only from JSON, and a whole run."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.wav import read_wav
from experiments import ablate, scoring
from experiments.reports import ablation
from sccunet.config import Config, ConfigError, ModelConfig

RATE = 8000
_REPORT = Path(__file__).parents[1] / "results" / "ablation"
_STEMS = ("vocals", "rest")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """An ablation of two losses and two seeds on one track, and its whole-track SDRs."""
    root = tmp_path_factory.mktemp("report")
    folder = root / "two_stems"
    rng = np.random.default_rng(0)
    references = 0.1 * rng.standard_normal((2, 2 * RATE, 1)).astype(np.float32)
    sdr = {}
    for run in ("plain/0", "plain/1", "balanced_one/0", "balanced_one/1", "scaled"):
        gain = rng.uniform(0.5, 0.9, (2, 1, 1)).astype(np.float32)
        sdr[run] = (-20 * np.log10(1 - gain)).ravel()
        scores = root / "scores" / run
        scores.mkdir(parents=True)
        (scores / scoring.SUMMARY).write_text(json.dumps({"tracks": ["test/x"]}))
        (scores / "test").mkdir()
        (scores / "test" / "gone.json").write_text(
            "{}"
        )  # from a track that was removed from the data
        scoring.score_track(references, gain * references, _STEMS, RATE, scores, "test/x")
        settings = {"system": "x", "stems": _STEMS, "data_dir": "/secret", "weights": "/secret/w"}
        (scores / scoring.SETTINGS).write_text(json.dumps(settings))
        scoring.publish(scores, folder / run)
    settings = {
        "name": "Two stems",
        "note": "Noise.",
        "stems": _STEMS,
        "weights": {"plain": [0.5, 0.5], "Balanced one": [0.7, 0.3]},
        "seeds": [0, 1],
        "config": ["small_2stems.py", "--config.epochs=3"],
        "epochs": 3,
        "steps_per_epoch": 4,
        "machine": {"cpu": "Abacus", "cores": 2},
        "levels_db": {"vocals": -6.0},
        "excerpt_seconds": None,
    }
    (folder / "ablation.json").write_text(json.dumps(settings))
    return root, sdr


def test_report_has_means_and_deviations_over_seeds(published):
    root, sdr = published
    shown = ablation.write_report(root)
    text = (root / "README.md").read_text()
    table = text.split("Music Demixing Challenge")[1]
    for name, run in (("plain", "plain"), ("Balanced one", "balanced_one")):
        runs = np.stack([sdr[f"{run}/0"], sdr[f"{run}/1"]])
        columns = [*runs.T, runs.mean(axis=1)]
        cells = [
            f"{column.mean():.2f} ± {abs(np.diff(column)[0]) / 2**0.5:.2f}" for column in columns
        ]
        row = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
        assert row.endswith(f"| {' | '.join(cells)} |")
    assert "| Balanced one | 0.7, 0.3 |" in text
    assert "Changed levels of the stems, in training and test: vocals -6 dB." in text
    assert (
        "small_2stems.py --config.epochs=3; 3 epochs of 4 steps, 2 seeds, on Abacus, 2 cores; 1"
        " test track, 2 s. " in text
    )
    assert f"| scaled |  | {sdr['scaled'][0]:.2f} | " in table
    assert (root / "two_stems.png").stat().st_size > 1000
    head, *lines = shown.splitlines()
    assert head == "Two stems"
    assert [line.split()[0] for line in lines[-3:]] == ["plain", "Balanced", "scaled"]
    assert max(map(len, lines)) <= 80

    (root / "README.md").unlink()
    (root / "two_stems" / "reading.md").write_text("Nothing can be said.\n")
    ablation.write_report(root)
    with_reading = (root / "README.md").read_text()
    assert with_reading.replace("Nothing can be said.\n\n", "") == text


def test_published_scores_are_small_and_without_paths(published):
    root, _ = published
    for path in (root / "two_stems").glob("**/*.json"):
        assert "secret" not in path.read_text()
    original = root / "scores" / "scaled"
    copy = root / "two_stems" / "scaled"
    assert scoring.summarise(copy) == scoring.summarise(original, ["test/x"])
    assert (copy / "test" / "x.json").stat().st_size < (
        0.7 * (original / "test" / "x.json").stat().st_size
    )


def test_seconds_without_a_score_are_reported(published, tmp_path):
    root, _ = published
    shutil.copytree(root, tmp_path / "report")
    path = tmp_path / "report" / "two_stems" / "plain" / "0" / "test" / "x.json"
    values = json.loads(path.read_text())
    for target in values["targets"]:
        for metric in target["frames"][0]["metrics"]:
            target["frames"][0]["metrics"][metric] = float("nan")
    path.write_text(json.dumps(values))
    ablation.write_report(tmp_path / "report")
    text = (tmp_path / "report" / "README.md").read_text()
    assert "Scored with plain: 1 to 2 of 2 s; the others 2 of 2 s." in text


def test_levels_are_set_once(tmp_path, write_track):
    data = write_track(tmp_path / "data" / "test" / "a", {"vocals": 0.1, "drums": 0.1}, 0.5)
    shutil.copy(data / "drums.wav", data / "mixture.wav")
    ablate.set_levels(tmp_path / "data", tmp_path / "out", {"vocals": -20.0})
    copy = tmp_path / "out" / "test" / "a"
    assert sorted(path.name for path in copy.iterdir()) == ["drums.wav", "vocals.wav"]
    vocals, before = (read_wav(folder / "vocals.wav") for folder in (copy, data))
    np.testing.assert_allclose(vocals, 0.1 * before, atol=0.51 / 32768)
    assert (copy / "drums.wav").read_bytes() == (data / "drums.wav").read_bytes()
    when = (copy / "vocals.wav").stat().st_mtime_ns
    ablate.set_levels(tmp_path / "data", tmp_path / "out", {"vocals": -20.0})
    assert (copy / "vocals.wav").stat().st_mtime_ns == when
    for levels, message in (
        ({"vocals": -10.0}, r"levels\.json: found .*-20.0.*, expected .*-10.0.*; choose another"),
        ({"voice": -10.0}, r"levels: found voice=-10, expected a stem in"),
        ({"vocals": 1.0}, r"levels: found vocals=1, expected .* 0 dB or less"),
    ):
        with pytest.raises(ConfigError, match=message):
            ablate.set_levels(tmp_path / "data", tmp_path / "out", levels)


def test_a_users_mistake_is_one_line(program, refusal, tmp_path):
    report = f"--report_dir={tmp_path / 'report'}"
    assert "found no */ablation.json" in refusal(program("ablate", report))
    given = (
        report,
        "--config=experiments/configs/small_2stems.py",
        f"--data_dir={tmp_path}",
        f"--work_dir={tmp_path}",
    )
    assert "--name: not given" in refusal(program("ablate", *given))
    message = refusal(program("ablate", *given, "--name=x", "--losses=one=1:0:0"))
    assert (
        message == "losses: found 3 weights for one, expected one for each of vocals, accompaniment"
    )


def test_invalid_flags(tmp_path):
    for values, message in (
        ({"losses": ["one=x:1"]}, "--losses: found 'x', expected a number"),
        ({"losses": ["a", "a"]}, "--losses: found a name twice in a,a, expected it once"),
        ({"losses": ["a 1", "a_1"]}, "losses: found a 1, a_1, expected names that make different"),
        ({"losses": ["scaled"]}, "losses: found scaled, expected names that make different"),
        ({"losses": []}, "losses: found none, expected names that"),
        ({"seeds": []}, "seeds: found [], expected different ones"),
        ({"seeds": ["0", "0"]}, "seeds: found [0, 0], expected different ones"),
        ({"seeds": ["0:5"]}, "--seeds: found '0:5', expected a number"),
        ({"levels": ["vocals"]}, "--levels: found '', expected a number"),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
            ablate.run_all(_options(tmp_path, Config(), **values))


def _options(folder, config, losses=("balanced",), seeds=("0",), levels=(), **more):
    """Options of an ablation on <folder>/data."""
    options = {
        "config_file": "config.py",
        "overrides": [],
        "data_dir": str(folder / "data"),
        "work_dir": str(folder / "work"),
        "report_dir": str(folder / "report"),
        "name": "x",
        "excerpt": None,
        "note": "",
    }
    return ablate.Options(
        config=config,
        losses=ablate.weights_of(losses),
        seeds=ablate.seeds_of(seeds),
        levels=ablate.levels_of(levels),
        **options | more,
    )


@pytest.mark.slow
def test_runs_are_trained_scored_and_reported_once(program, tmp_path, write_track, monkeypatch):
    monkeypatch.setattr(ablate.cli, "run_program", lambda *line: program(*line).returncode)
    for split, names in (("train", "abcdefg"), ("test", "h")):
        for seed, name in enumerate(names):
            levels = {"vocals": 0.05, "drums": 0.1}
            write_track(tmp_path / "data" / split / name, levels, 2, seed + 1, RATE)
    model = {"frame_length": 512, "hop_length": 128, "patch_samples": 8192, "filters": (4, 8)}
    config = Config(
        model=ModelConfig(stems=_STEMS, sample_rate=RATE, **model),
        sources={"rest": ("drums",)},
        batch_size=2,
        epochs=1,
        steps_per_epoch=1,
        validation_crops=2,
    )
    (tmp_path / "config.py").write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config():\n  return ConfigDict({config.to_dict()!r})\n"
    )
    options = _options(
        tmp_path,
        dataclasses.replace(config, steps_per_epoch=2),
        losses=["alpha 1=1:0", "balanced"],
        seeds=["3"],
        levels=["vocals=-6"],
        config_file=str(tmp_path / "config.py"),
        overrides=["--config.steps_per_epoch=2"],
        name="Two stems, quiet",
        excerpt=1.0,
    )
    ablate.run_all(options)
    folder = tmp_path / "report" / "two_stems_quiet"
    settings = json.loads((folder / "ablation.json").read_text())
    assert settings["weights"]["alpha 1"] == [1.0, 0.0]
    # The vocals have a quarter of the drums' level.
    assert settings["weights"]["balanced"] == pytest.approx([0.8, 0.2], abs=0.01)
    assert settings["steps_per_epoch"] == 2
    assert settings["config"] == ["config.py", "--config.steps_per_epoch=2"]
    assert str(tmp_path) not in (folder / "ablation.json").read_text()
    runs = tmp_path / "work" / "runs"
    trained = json.loads((runs / "balanced" / "3" / "config.json").read_text())
    assert (trained["seed"], trained["steps_per_epoch"]) == (3, 2)
    files = [*runs.glob("**/*.h5"), *tmp_path.glob("work/scores/**/test/*.json")]
    times = {path: path.stat().st_mtime_ns for path in files}
    assert len({path.suffix for path in times}) == 2

    # A part of it again, with the real program: nothing is trained or scored.
    done = program(
        *("ablate", "--config", options.config_file, "--config.steps_per_epoch=2", "--name=Part"),
        *(f"--{name}_dir={tmp_path / name}" for name in ("data", "work", "report")),
        *("--losses=balanced", "--seeds=3", "--levels=vocals=-6", "--excerpt=1", "--note=Noise."),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in times} == times
    part = json.loads((tmp_path / "report" / "part" / "ablation.json").read_text())
    weights = {"balanced": settings["weights"]["balanced"]}
    assert part == {**settings, "name": "Part", "note": "Noise.", "weights": weights}
    text = (tmp_path / "report" / "README.md").read_text()
    assert len(re.findall(r"^\| balanced \| 0.8, 0.2 \| ", text, re.MULTILINE)) == 4


def test_the_committed_report_matches_its_json(tmp_path):
    shutil.copytree(_REPORT, tmp_path / "report")
    (tmp_path / "report" / "README.md").unlink()
    ablation.write_report(tmp_path / "report")
    assert (tmp_path / "report" / "README.md").read_text() == (_REPORT / "README.md").read_text()
