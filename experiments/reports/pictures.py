"""Box plots of scores, and shared functions for all pictures."""

import io
import os
from collections.abc import Mapping, Sequence

import numpy as np

from sccunet.files import write_whole

_MOST_BYTES = 300_000
_DRAWN_DB = 60  # a scaled mixture has a SAR of 150 dB and more
_REFERENCE, _OURS, _ORACLE = "#b8b8b8", "#e8710a", "#c9b8dc"
_OTHERS = ("#3b75af", "#519e3e", "#c53a32", "#84584e", "#d684bd", "#65b2b8")


def colours(groups: Sequence[str]) -> list[str]:
    """Returns a colour for each system's group: "reference", "ours", "other" or "oracle"."""
    fixed = {"reference": _REFERENCE, "ours": _OURS, "oracle": _ORACLE}
    others = 0
    chosen = []
    for group in groups:
        chosen.append(fixed.get(group, _OTHERS[others % len(_OTHERS)]))
        others += group not in fixed
    return chosen


def boxes(
    values: Mapping[str, Mapping[str, np.ndarray]],
    metrics: Sequence[str],
    box_colours: Sequence[str],
    title: str,
    path: str | os.PathLike,
) -> None:
    """Draws box plots, a row of panels for each stem and a column for each metric.

    Boxes extend from the 25th to the 75th percentile, whiskers from the 5th to the 95th.

    Args:
      values: system -> stem -> [frames or tracks, metrics], dB; NaN and values over 60 dB are not
        drawn.
      metrics: names of the metrics.
      box_colours: colours of the systems.
      title: description of the values.
      path: the PNG to write.
    """
    pyplot = load_pyplot()
    stems = list(next(iter(values.values())))
    height = 0.9 + len(stems) * (0.5 + 0.21 * len(values))
    figure, axes = pyplot.subplots(
        len(stems),
        len(metrics),
        figsize=(10, height),
        sharex="col",
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for stem, row in zip(stems, axes, strict=True):
        for i, (metric, axis) in enumerate(zip(metrics, row, strict=True)):
            for place, (scores, colour) in enumerate(
                zip(values.values(), box_colours, strict=True)
            ):
                _box(axis, place, scores[stem][:, i], colour)
            axis.set_title(f"{stem}: {metric}", fontsize=10)
            axis.grid(axis="x", alpha=0.4)
            axis.set_axisbelow(True)
            axis.tick_params(labelsize=9)
    axes[0, 0].set_yticks(range(len(values)), list(values))
    axes[0, 0].set_ylim(len(values) - 0.4, -0.6)  # the first on top
    for axis in axes[-1]:
        axis.set_xlabel("dB", fontsize=9)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def _box(axis, place: int, scores: np.ndarray, colour: str) -> None:
    """Draws a box of those `scores` that are neither NaN nor too large."""
    finite = scores[scores < _DRAWN_DB]  # false for NaN
    if not finite.size:
        return
    thin = {"linewidth": 0.8}
    axis.boxplot(
        [finite],
        positions=[place],
        orientation="horizontal",
        widths=0.7,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": colour, **thin},
        medianprops={"color": "black", "linewidth": 1.6},
        whiskerprops=thin,
        capprops=thin,
    )


def load_pyplot():
    """Imports matplotlib.pyplot, which takes a second, for use without a screen.

    The user's matplotlibrc has no effect: it may ask for LaTeX, for example.
    """
    import matplotlib

    matplotlib.rcdefaults()
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure, path: str | os.PathLike, most_bytes: float = _MOST_BYTES) -> None:
    """Writes a PNG with few colours, at the highest resolution that the file size allows."""
    from matplotlib import pyplot
    from PIL import Image

    for dpi in (110, 100, 90, 80, 70, 60, 50):
        drawn, packed = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, dpi=dpi)
        picture = Image.open(drawn).convert("RGB")
        picture.quantize(128, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
        if packed.tell() < most_bytes:
            break
    pyplot.close(figure)
    write_whole(path, packed.getvalue())
