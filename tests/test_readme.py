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
