"""Numbers and tables as text: Markdown for reports, aligned columns for terminals."""

import statistics
import textwrap
from collections.abc import Sequence

_TOLD_DB = 100  # above are only rounding errors, as in the SAR of a scaled mixture


def decibels(value: float | None, none: str = "no score", over: str = "over ") -> str:
    """Formats a score in dB with two decimals, and never as -0.00.

    Args:
      value: the score; None if there is none.
      none: text for None.
      over: text in front of 100 for more than 100 dB.
    """
    if value is None:
        return none
    return f"{over}{_TOLD_DB}" if value > _TOLD_DB else f"{value:z.2f}"


def over_runs(values: Sequence[float | None], none: str = "no score", over: str = "over ") -> str:
    """Formats the scores of runs that differ by their seeds: mean ± standard deviation, in dB.

    Args:
      values: a score for each run. One alone is formatted as `decibels` does.
      none: text for runs of which one has no score.
      over: as in `decibels`.
    """
    if None in values:
        return none
    mean = decibels(statistics.fmean(values), over=over)
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def number(value: float) -> str:
    """Formats a value with three digits, or all digits before the point."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:#.3g}".rstrip(".")


def seconds(value: float) -> str:
    """Formats seconds as `number` does."""
    return f"{number(value)} s"


def gigabytes(value: float) -> str:
    """Formats bytes in GB of 10^9."""
    return f"{value / 1e9:.2f} GB"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table in Markdown; all columns but the first are right-aligned."""
    aligned = ["---", *["--:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, aligned, *rows)]


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table for a terminal, aligned as `markdown` does."""
    lines = [header, *rows]
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    return [
        line[0].ljust(first)
        + "".join(f"  {cell:>{width}}" for cell, width in zip(line[1:], others, strict=True))
        for line in lines
    ]


def wrapped(line: str) -> list[str]:
    """Breaks a line of text for a terminal of 80 columns; words, as in names, are kept whole."""
    return textwrap.wrap(line, 80, break_long_words=False, break_on_hyphens=False)
