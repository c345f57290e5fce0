"""Figures in the README are those of the raw results that lie in the repository."""

import json
import statistics
from pathlib import Path

import pytest

from experiments import scoring
from experiments.benchmarks import report as benchmark_report

_ROOT = Path(__file__).parents[1]
_VARIANTS = ("none", "soft_1", "soft_2", "wiener_1")


def _mask_rows(folder):
    """Median SDR / SIR of every stem, a column for each way from estimates to stems."""
    summaries = [scoring.summarise(folder / variant) for variant in _VARIANTS]
    for stem in summaries[0]["stems"]:
        scores = [summary["stems"][stem] for summary in summaries]
        cells = [f"{s['SDR']['median']:.2f} / {s['SIR']['median']:.2f}" for s in scores]
        yield f"| {folder.name.replace('_', ' ')} | {stem} | {' | '.join(cells)} |"


def test_mask_table():
    readme = (_ROOT / "README.md").read_text()
    rows = [row for folder in ("rendered_songs", "everything_is_free")
            for row in _mask_rows(_ROOT / "results" / "masks" / folder)]  # fmt: skip
    assert len(rows) == 6
    missing = [row for row in rows if row not in readme]
    assert not missing, "expected in README.md:\n" + "\n".join(missing)


_COMPARISON = _ROOT / "results" / "comparison"
_SETS = {
    "sodium": "everything_is_free_sodium",
    "rendered songs": "rendered_songs",
    "synthetic": "synthetic_test_set",
}


def _comparison(folder, system):
    return scoring.summarise(_COMPARISON / folder / system)["stems"]


def test_comparison_table():
    readme = (_ROOT / "README.md").read_text()
    rows = []
    for name, folder in _SETS.items():
        systems = [_comparison(folder, s) for s in ("sccunet_small", "openunmix", "scaled", "irm")]
        for stem in systems[0]:
            cells = [f"{s[stem]['SDR']['median']:.2f} / {s[stem]['SIR']['median']:.2f}"
                     for s in systems]  # fmt: skip
            rows.append(f"| {name} | {stem} | {' | '.join(cells)} |")
    assert len(rows) == 10
    missing = [row for row in rows if row not in readme]
    assert not missing, "expected in README.md:\n" + "\n".join(missing)


def test_ideal_ratio_mask_bounds_the_trained_model_and_the_references():
    """On the synthetic test set, whose scores lie in the repository."""
    oracle = _comparison("synthetic_test_set", "irm")
    for system in ("mixture", "scaled", "sccunet_small", "openunmix"):
        for stem, scores in _comparison("synthetic_test_set", system).items():
            for metric in ("SDR", "SIR"):
                assert oracle[stem][metric]["median"] > scores[metric]["median"]


_FLOAT32, _BFLOAT16 = ("twin", "twin_compiled"), ("twin_bfloat16", "twin_bfloat16_compiled")
# What, section, case, ours, the best of which others.
_SPEEDS = (
    *(
        (
            f"training data, {crop} s crops, stem-seconds per second",
            *("input", {"crop_seconds": crop}, "ours", ("openunmix_musdb", "openunmix_folder")),
        )
        for crop in (2, 6)
    ),
    ("training step, batch 8, float32, s", "train", {"batch_size": 8}, "ours", _FLOAT32),
    ("training step, batch 8, bfloat16, s", "train", {"batch_size": 8}, "ours_bfloat16", _BFLOAT16),
    ("a stereo file, float32, s", "separate", {}, "ours", _FLOAT32),
    ("a stereo file, SavedModel, s", "separate", {}, "saved_model", _FLOAT32),
    ("a stereo file, bfloat16, s", "separate", {}, "ours_bfloat16", _BFLOAT16),
)


# Of the processors that README has a table for.
_REPORTS = ("benchmark", "benchmark_avx2")


def _medians(report, section, case):
    """By contender."""
    return {
        one["name"]: statistics.median(benchmark_report.values(section, one))
        for one in report[section]["measurements"]
        if one["case"] == case and one["rounds"]
    }


def _speed_rows(report):
    for what, section, case, ours, others in _SPEEDS:
        medians = _medians(report, section, case)
        theirs = [medians[name] for name in others if name in medians]
        if ours not in medians or not theirs:
            continue
        best = max(theirs) if section == "input" else min(theirs)
        what = what.replace("a stereo", f"a {report[section]['seconds']:g} s stereo")
        numbers = (f"{x:,.0f}" if x >= 100 else f"{x:.1f}" for x in (medians[ours], best))
        yield f"| {what} | {' | '.join(numbers)} | {medians[ours] / best:.2f} |"


@pytest.mark.parametrize("name", _REPORTS)
def test_speed_table(name):
    readme = (_ROOT / "README.md").read_text()
    report = json.loads((_ROOT / "results" / name / "benchmark.json").read_text())
    rows = list(_speed_rows(report))
    cold = _medians(report, "separate", {})
    rows.append(f"{cold['cold_small']:.1f} s with `small_4stems`, {cold['cold_config']:.1f} s with")
    missing = [row for row in rows if row not in readme]
    assert not missing, "expected in README.md:\n" + "\n".join(missing)
