"""Figures in the README are those of the raw results that lie in the repository."""

from pathlib import Path

from experiments import scoring

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
