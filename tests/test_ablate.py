"""The program ablate: its report, only from JSON, variants, step times, and a whole run."""

import contextlib
import dataclasses
import json
import re
import shutil
from pathlib import Path
from types import MappingProxyType

import numpy as np
import process
import pytest

from data_pipeline.wav import read_wav
from experiments import ablate, arguments, configs, scoring
from experiments.ablating import step_times
from experiments.ablating.variants import variants_of
from experiments.reports import ablation
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.files import lock_folder
from sccunet.runs import load_config

pytestmark = pytest.mark.filterwarnings(
    "ignore:the load_module:DeprecationWarning"
)  # ml_collections

RATE = 8000
_REPORT = Path(__file__).parents[1] / "results" / "ablation"
_STEMS = ("vocals", "accompaniment")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """An ablation of two variants and two seeds on one track, and its whole-track SDRs."""
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
        "variants": {
            "plain": {
                "changes": [],
                "loss_weights": [0.5, 0.5],
                "epochs": 3,
                "steps_per_epoch": 4,
                "step_seconds": 0.1234,
            },
            "Balanced one": {
                "changes": ["model.output=mask", "loss_weights=(0.7,0.3)"],
                "loss_weights": [0.7, 0.3],
                "epochs": 3,
                "steps_per_epoch": 4,
                "step_seconds": 0.2468,
            },
        },
        "seeds": [0, 1],
        "config": ["small_2stems.py", "--config.epochs=3"],
        "minutes": None,
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
    assert "| variant | changes | loss weights | seconds per step |" in text
    assert "| plain |  | 0.5, 0.5 | 0.123 |" in text
    assert (
        "| Balanced one | `model.output=mask`, `loss_weights=(0.7,0.3)` | 0.7, 0.3 | 0.247 |"
        in text
    )
    assert "Changed levels of the stems, in training and test: vocals -6 dB." in text
    assert (
        "small_2stems.py --config.epochs=3; 3 epochs of 4 steps, 2 seeds, on Abacus, 2 cores; 1"
        " test track, 2 s. " in text
    )
    assert f"| scaled | {sdr['scaled'][0]:.2f} | " in table
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


def test_columns_without_a_difference_are_left_out(published, tmp_path, monkeypatch):
    root, _ = published
    monkeypatch.setattr(ablation, "_draw", lambda *_: None)
    shutil.copytree(root, tmp_path / "report")
    path = tmp_path / "report" / "two_stems" / "ablation.json"
    settings = json.loads(path.read_text())
    plain, other = settings["variants"].values()
    other.update(loss_weights=plain["loss_weights"], step_seconds=None)
    for steps, minutes, said, row in (
        (4, None, "3 epochs of 4 steps, 2 seeds", "| plain |  |"),
        (0, None, "training steps as listed, 2 seeds", "| plain |  | 3 epochs of all crops |"),
        (9, 10, "training steps for 10 minutes, 2 seeds", "| plain |  | 27 |"),
    ):
        plain["steps_per_epoch"], settings["minutes"] = steps, minutes
        path.write_text(json.dumps(settings))
        ablation.write_report(tmp_path / "report")
        text = (tmp_path / "report" / "README.md").read_text()
        assert f"--config.epochs=3; {said}, on Abacus" in text
        assert row in text.splitlines()


def test_a_users_mistake_is_one_line(program, refusal, tmp_path):
    with pytest.raises(ConfigError, match=r"found no \*/ablation\.json"):
        ablation.write_report(tmp_path)
    done = program(
        *("ablate", "--config=small_2stems", "--name=x", "--variants=mask:model.outptu=mask"),
        *(f"--{name}_dir={tmp_path / name}" for name in ("data", "work", "report")),
    )
    assert refusal(done) == (
        "--variants: mask: --config.model.outptu: found no such field, expected model.output"
    )
    assert list(tmp_path.iterdir()) == []


_SMALL = configs.path_of("small_2stems")


def test_variants_change_fields_of_the_config():
    given = ["paper", "two, and:model.filters=(4, 8),loss_weights=(0.7,0.3),random_crops=False"]
    paper, both = variants_of(given, _SMALL, {"epochs": 3, "loss_weights": (0.5, 0.5)})
    assert (paper.name, both.name) == ("paper", "two, and")
    assert paper.config == arguments.config_of(_SMALL, paper.overrides)
    assert (paper.config.epochs, paper.config.loss_weights) == (3, (0.5, 0.5))
    assert both.changes == {
        "model.filters": "(4, 8)",
        "loss_weights": "(0.7,0.3)",
        "random_crops": "False",
    }
    # ml_collections would append the variant's tuple to the one for all variants.
    assert both.config.loss_weights == (0.7, 0.3)
    assert (both.config.model.filters, both.config.epochs) == ((4, 8), 3)
    assert both.config.random_crops is False


def test_invalid_flags(tmp_path):
    variants = {
        "one:loss_weights=(1,0,0)": "--variants: one: config.loss_weights: found (1, 0, 0)",
        "one:seed": "--variants: found 'seed' in one:seed, expected FIELD=VALUE",
        "one:sources.accompaniment=('drums',)": "--variants: found sources.accompaniment in one,",
        "one:seed=3": "--variants: one: found seed, expected none: --seeds sets it",
        "one:steps_per_epoch=3": "--variants: one: found steps_per_epoch, expected none: --minutes",
        "scaled": "--variants: found scaled, expected names that make different",
    }
    for values, message in (
        *(({"variants": [variant]}, message) for variant, message in variants.items()),
        ({"variants": ["a", "a:seed=1"]}, "--variants: found 'a' twice, expected it once"),
        ({"variants": ["a 1", "a_1"]}, "--variants: found a 1, a_1, expected names that make diff"),
        ({"variants": []}, "--variants: found none, expected names that"),
        ({"overrides": {"batch_size": 0}}, "config.batch_size: found 0, expected a whole number"),
        ({"overrides": {"seed": 0}}, "--config: found seed, expected none: --seeds sets it"),
        ({"seeds": []}, "seeds: found [], expected different ones"),
        ({"seeds": ["0", "0"]}, "seeds: found [0, 0], expected different ones"),
        ({"seeds": ["0:5"]}, "--seeds: found '0:5', expected a number"),
        ({"levels": ["vocals"]}, "--levels: found '', expected a number"),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
            ablate.run_all(_options(tmp_path, **values))


def _options(
    folder,
    file=_SMALL,
    variants=("plain",),
    seeds=("0",),
    levels=(),
    overrides=MappingProxyType({}),
    minutes=1.0,
    **more,
):
    """Options of an ablation on <folder>/data."""
    return ablate.Options(
        config_file=file,
        overrides=overrides,
        variants=variants_of(variants, file, overrides),
        seeds=ablate.seeds_of(seeds),
        levels=ablate.levels_of(levels),
        minutes=minutes,
        **{f"{name}_dir": str(folder / name) for name in ("data", "work", "report")},
        **{"name": "x", "excerpt": None, "note": "", **more},
    )


def test_steps_are_timed_in_turns_and_once(tmp_path, monkeypatch):
    timed = []
    seconds = {8: [5.0, 1.0, 9.0], 4: [2.0, 2.0, 40.0]}  # of five steps, by batch size

    def run_worker(section, name, settings):
        config = Config.from_dict(settings["config"])
        assert (section, name) == ("train", "ours_pipeline")
        assert (settings["data_dir"], settings["precision"]) == ("DATA", "mixed_bfloat16")
        timed.append(config.batch_size)
        if config.batch_size == 2:
            return {"not_run": "out of memory"}
        return {"seconds": seconds[settings["batch_size"]], "work": settings["steps"]}

    monkeypatch.setattr(step_times, "run_worker", run_worker)
    plans = {
        f"of {size}": Config(batch_size=size, precision="mixed_bfloat16") for size in (8, 4, 2)
    }
    two = {name: plans[name] for name in ("of 8", "of 4")}
    with contextlib.ExitStack() as other:  # another program that times its steps there, a while
        assert other.enter_context(lock_folder(tmp_path))
        monkeypatch.setattr(step_times.time, "sleep", lambda _: (timed.append(0), other.close()))
        step_times.step_seconds({}, "DATA", tmp_path)
        assert timed.pop() == 0
    assert step_times.step_seconds(two, "DATA", tmp_path) == {"of 8": 1.0, "of 4": 0.4}
    assert timed == [8, 4] * 3
    # A longer run has the same steps, another patch length has not.
    for field, measured in (({"epochs": 3}, 0), ({"model": ModelConfig(patch_samples=44_100)}, 3)):
        timed.clear()
        changed = {"of 8": dataclasses.replace(plans["of 8"], **field)}
        assert step_times.step_seconds(changed, "DATA", tmp_path) == {"of 8": 1.0}
        assert len(timed) == measured
    with pytest.raises(ConfigError, match=r"^of 2: its step cannot be timed: out of memory$"):
        step_times.step_seconds(plans, "DATA", tmp_path)


def test_each_variant_runs_with_each_seed(published, tmp_path):
    """With programs that train and time nothing."""
    scores = str(published[0] / "scores" / "plain" / "0")
    line = [
        *("--config=small_2stems", "--config.epochs=4", "--config.batch_size=2", "--name=Both"),
        *("--variants=all:batch_size=4", "--variants=none:loss_weights=(1,0),epochs=2"),
        *("--seeds=3,4", "--minutes=1", "--excerpt=2", "--note=Noise."),
        *(f"--{name}_dir={tmp_path / name}" for name in ("data", "work", "report")),
    ]
    done = process.start_module("fake_ablation", *line, SCORES=scores).wait()
    assert done.returncode == 0, done.stderr
    printed = [json.loads(each) for each in done.stdout.splitlines() if each.startswith("[")]
    names = [each[0] for each in printed]
    assert names == ["train", "evaluate"] * 4 + ["evaluate"]
    runs = [tmp_path / "work" / "runs" / each for each in ("all/3", "none/3", "all/4", "none/4")]
    assert [f"--workdir={run}" for run in runs] == [each[-1] for each in printed[:-1:2]]
    for run in runs:
        config = load_config(run)
        is_all = run.parent.name == "all"
        assert (config.seed, config.batch_size) == (int(run.name), 4 if is_all else 2)
        # A minute has 120 steps of 0.5 s, or 240 of half the batch.
        assert (config.epochs, config.steps_per_epoch) == ((4, 30) if is_all else (2, 120))
        assert config.loss_weights == (() if is_all else (1, 0))
    for each in printed[1::2]:
        assert {"--excerpt=2.0", f"--data_dir={tmp_path / 'data'}"} <= set(each)
    settings = json.loads((tmp_path / "report" / "both" / "ablation.json").read_text())
    assert (settings["minutes"], settings["note"], settings["seeds"]) == (1, "Noise.", [3, 4])
    assert settings["config"] == ["small_2stems", "--config.epochs=4", "--config.batch_size=2"]
    assert settings["variants"]["none"] == {
        "changes": ["loss_weights=(1,0)", "epochs=2"],
        "loss_weights": [1, 0],
        "epochs": 2,
        "steps_per_epoch": 120,
        "step_seconds": 0.25,
    }
    assert "| all | `batch_size=4` |" in (tmp_path / "report" / "README.md").read_text()


def _write_data_and_config(folder, write_track):
    """Writes data/, eight tracks of 2 s, and config.py, a small network that one step trains."""
    for split, names in (("train", "abcdefg"), ("test", "h")):
        for seed, name in enumerate(names):
            levels = {"vocals": 0.05, "drums": 0.1}
            write_track(folder / "data" / split / name, levels, 2, seed + 1, RATE)
    model = {"frame_length": 512, "hop_length": 128, "patch_samples": 8192, "filters": (4, 8)}
    config = Config(
        model=ModelConfig(stems=_STEMS, sample_rate=RATE, **model),
        sources={"accompaniment": ("drums",)},
        epochs=1,
        steps_per_epoch=1,
        validation_crops=2,
    )
    (folder / "config.py").write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config():\n  return ConfigDict({config.to_dict()!r})\n"
    )


@pytest.mark.slow
def test_runs_are_timed_trained_scored_and_reported_once(
    program, tmp_path, write_track, monkeypatch
):
    timed = []

    def run_worker(*line):
        if not timed:
            line = (*line[:-1], json.dumps(line[-1]))
            done = process.start_module("experiments.benchmarks.worker", *line).wait()
            timed.append(json.loads(done.stdout.splitlines()[-1]))
        return timed[0]

    monkeypatch.setattr(step_times, "run_worker", run_worker)
    lines = []

    def run_program(*line):
        lines.append(line)
        return program(*line).returncode

    monkeypatch.setattr(ablate.cli, "run_program", run_program)
    _write_data_and_config(tmp_path, write_track)
    options = _options(
        tmp_path,
        str(tmp_path / "config.py"),
        variants=["narrow:model.filters=(3,6),batch_size=3"],
        seeds=["3"],
        levels=["vocals=-6"],
        overrides={"batch_size": 2, "learning_rate": 0.01},
        minutes=None,
        name="Two stems, quiet",
        excerpt=1.0,
        note="Noise.",
    )
    ablate.run_all(options)
    before = list(lines)
    folder = tmp_path / "report" / "two_stems_quiet"
    settings = json.loads((folder / "ablation.json").read_text())
    flags = ["--config.batch_size=2", "--config.learning_rate=0.01"]
    assert settings["config"] == ["config.py", *flags]
    narrow = settings["variants"]["narrow"]
    assert (narrow["epochs"], narrow["steps_per_epoch"]) == (1, 1)
    assert narrow["step_seconds"] == np.median(timed[0]["seconds"]) / 5
    # The vocals have a quarter of the drums' level.
    assert narrow["loss_weights"] == pytest.approx([0.8, 0.2], abs=0.01)
    assert str(tmp_path) not in (folder / "ablation.json").read_text()
    trained = load_config(tmp_path / "work" / "runs" / "narrow" / "3")
    assert (trained.seed, trained.batch_size, trained.model.filters) == (3, 3, (3, 6))
    assert trained.learning_rate == 0.01

    # Again: nothing is timed, and the programs are called with the same arguments.
    lines.clear()
    monkeypatch.setattr(ablate.cli, "run_program", lambda *line: bool(lines.append(line)))
    monkeypatch.setattr(step_times, "run_worker", None)
    ablate.run_all(options)
    assert lines == before
    assert json.loads((folder / "ablation.json").read_text()) == settings


def test_the_committed_report_matches_its_json(tmp_path):
    shutil.copytree(_REPORT, tmp_path / "report")
    (tmp_path / "report" / "README.md").unlink()
    ablation.write_report(tmp_path / "report")
    assert (tmp_path / "report" / "README.md").read_text() == (_REPORT / "README.md").read_text()
