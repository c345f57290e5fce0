"""Results of comparisons in a report's folder, and published scores to quote.

<data set>/dataset.json           the compared systems and the data
<data set>/<label>/               scores of a system, as `sccunet evaluate` writes them
<data set>/<label>/measure.json   a list of results of `sccunet measure`
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import scoring
from experiments.baselines.systems import GROUPS, SYSTEMS, Kind
from experiments.score_files import scored_tracks
from sccunet.config import ConfigError
from sccunet.files import name_that_fits, read_json, write_whole

DATA_SET = "dataset.json"
MEASUREMENTS = "measure.json"
_FIELDS = ("name", "split", "tracks", "excerpt", "note", "config", "overrides", "systems")
_LONGEST_END = "_spectrograms.png"

_PUBLISHED = Path(__file__).with_name("published.json")
_MUSDB18_HZ = 44_100
_MUSDB18_SECONDS = 10_000  # the test tracks have 12 500 s
# Settings that must be equal for scores in one table.
_SAME = ("split", "stems", "sample_rate", "excerpt_seconds")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A system of a comparison.

    Attributes:
      label: name in the report.
      system: one of `SYSTEMS`.
      weights: name of its weights, if it has any.
      folder: folder of its scores.
      settings: what was scored, as evaluate wrote it; None if not run.
      summary: from `scoring.summarise`; None if not run.
      measurements: results of `sccunet measure`, one per run.
    """

    label: str
    system: str
    weights: str | None
    folder: Path
    settings: Mapping[str, Any] | None
    summary: Mapping[str, Any] | None
    measurements: Sequence[Mapping[str, Any]]

    @property
    def kind(self) -> Kind:
        """The system's row of `SYSTEMS`."""
        return SYSTEMS[self.system]

    @property
    def title(self) -> str:
        """The label, with a mark if the system uses the true stems."""
        return f"{self.label} †" if self.kind.given_truth else self.label

    @property
    def has_costs(self) -> bool:
        """Whether time and memory of the system are of interest."""
        return self.kind.group in ("ours", "other") and self.kind.computes


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The systems compared on the same tracks.

    Attributes:
      slug: name of its folder, and prefix of its pictures.
      info: content of dataset.json.
      entries: the systems, in the order of the rows.
    """

    slug: str
    info: Mapping[str, Any]
    entries: Sequence[Entry]

    @property
    def scored(self) -> list[Entry]:
        """The systems that have scores."""
        return [entry for entry in self.entries if entry.summary]

    @property
    def stems(self) -> list[str]:
        """The scored stems."""
        return list(self.scored[0].settings["stems"])

    @property
    def is_musdb18(self) -> bool:
        """Whether these are all of MUSDB18's test tracks, in full length.

        musdb's previews have the same names, but only 7 seconds each.
        """
        if not self.scored:
            return False
        settings, summary = self.scored[0].settings, self.scored[0].summary
        seconds = summary["stems"][self.stems[0]]["frames"]
        wanted = {f"test/{name}" for name in published()["test_tracks"]}
        return (
            set(summary["tracks"]) == wanted
            and seconds > _MUSDB18_SECONDS
            and not settings.get("excerpt_seconds")
            and settings["sample_rate"] == _MUSDB18_HZ
        )


def published() -> dict[str, Any]:
    """Returns published scores on MUSDB18's test tracks, and the names of these tracks."""
    return read_json(_PUBLISHED)


def slug(name: str) -> str:
    """Returns a name in a form that file names can start with."""
    plain = re.sub(r"\W+", "_", name.lower()).strip("_")
    return name_that_fits(plain, _LONGEST_END).removesuffix(_LONGEST_END)


def read(report_dir: str | os.PathLike) -> list[DataSet]:
    """Reads the comparisons in a folder, sorted by folder name.

    Raises:
      ConfigError: if there are none, or if the scores of a comparison are not of the same tracks.
    """
    paths = sorted(Path(report_dir).glob(f"*/{DATA_SET}"))
    if not paths:
        raise ConfigError(f"{report_dir}: found no */{DATA_SET}, expected results of a comparison")
    return [read_data_set(path.parent) for path in paths]


def read_data_set(folder: Path) -> DataSet:
    """Reads one comparison, as `read`."""
    info = read_json(folder / DATA_SET, *_FIELDS)
    entries = []
    for label, what in info["systems"].items():
        path = folder / label / scoring.SETTINGS
        run = path.exists()
        measured = folder / label / MEASUREMENTS
        entries.append(
            Entry(
                label,
                what["system"],
                what["weights"],
                folder / label,
                read_json(path) if run else None,
                scoring.summarise(folder / label) if run else None,
                read_json(measured) if measured.exists() else [],
            )
        )
    entries.sort(key=lambda entry: GROUPS.index(entry.kind.group))
    data_set = DataSet(folder.name, info, entries)
    for entry in data_set.scored[1:]:
        first = data_set.scored[0]
        for field in (*_SAME, "tracks"):
            ours, theirs = (
                each.summary["tracks"] if field == "tracks" else each.settings.get(field)
                for each in (entry, first)
            )
            if ours != theirs:
                raise ConfigError(
                    f"{entry.folder / scoring.SETTINGS}: found {field} = {ours!r}, expected"
                    f" {theirs!r} as in {first.folder}; compare them under another --name"
                )
    return data_set


def merged(path: Path, info: dict[str, Any], systems: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content for dataset.json: `info`, and earlier and new systems.

    Args:
      path: path of dataset.json, which need not exist.
      info: description of the data set.
      systems: label -> {"system", "weights"} of the new systems.

    Raises:
      ConfigError: if the earlier comparison was a different one.
    """
    before: Mapping[str, Any] = {"systems": {}}
    if path.exists():
        before = read_json(path, *_FIELDS)
        for field in ("split", "tracks", "excerpt"):
            if before[field] != info[field]:
                raise ConfigError(
                    f"{path}: found {field} = {before[field]!r}, expected {info[field]!r}; choose"
                    " another --name"
                )
        info["note"] = info["note"] or before["note"]
        info["config"] = before["config"] and info["config"]  # one --model is enough
        if "example" in before:
            info["example"] = before["example"]
    for label, what in systems.items():
        if (old := before["systems"].get(label, what)) != what:
            raise ConfigError(
                f"{path}: found {label} = {old['system']} {old['weights'] or ''}, expected"
                f" {what['system']} {what['weights'] or ''}; choose another label"
            )
    return {**info, "systems": {**before["systems"], **systems}}


def check_tracks(folder: Path, labels: Sequence[str], tracks: Sequence[Any]) -> None:
    """Raises ConfigError if systems other than `labels` were scored on other tracks before."""
    now = {f"{track.split}/{track.name}" for track in tracks}
    for path in sorted(folder.glob("*")):
        scored = set(scored_tracks(path))
        if path.name not in labels and scored and scored != now:
            differ = ", ".join(sorted(scored ^ now)[:3])
            raise ConfigError(
                f"{path}: found scores of other tracks (differing: {differ}), expected"
                " the same for all systems; choose another --name, or give all systems again"
            )


def publish(work: Path, folder: Path) -> None:
    """Copies a system's scores and measurements into the report's folder.

    Args:
      work: folder with scores/ and measure_<round>.json.
      folder: folder of the system in the report.
    """
    scoring.publish(work / "scores", folder)
    if rounds := [read_json(path) for path in sorted(work.glob("measure_*.json"))]:
        write_whole(folder / MEASUREMENTS, to_json(rounds))


def to_json(value: Any) -> str:
    """Returns JSON without white space, as a report has many files."""
    return json.dumps(value, separators=(",", ":")) + "\n"
