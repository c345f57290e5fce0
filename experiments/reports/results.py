"""Results of comparisons in a report's folder, and published scores to quote.

<data set>/dataset.json           the compared systems and the data
<data set>/<label>/               scores of a system, as `sccunet evaluate` writes them
<data set>/<label>/measure.json   a list of results of `sccunet measure`
<data set>/<label>/<number>/      the same for each run of a system that has several, from 0
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
class Run:
    """A run of a system that has scores.

    Attributes:
      folder: folder of the scores.
      settings: what was scored, as evaluate wrote it.
      summary: from `scoring.summarise`.
    """

    folder: Path
    settings: Mapping[str, Any]
    summary: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A system of a comparison.

    Attributes:
      label: name in the report.
      system: one of `SYSTEMS`.
      weights: names of the weights of each run; None for a run without.
      runs: the runs that have scores; several differ by their weights, as with other seeds.
      measurements: results of `sccunet measure` of the first run, one per measurement.
    """

    label: str
    system: str
    weights: Sequence[str | None]
    runs: Sequence[Run]
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
        return [entry for entry in self.entries if entry.runs]

    @property
    def stems(self) -> list[str]:
        """The scored stems."""
        return list(self.first.settings["stems"])

    @property
    def first(self) -> Run:
        """The first run that has scores; all others are of the same tracks."""
        return self.scored[0].runs[0]

    @property
    def has_seeds(self) -> bool:
        """Whether a system has several runs."""
        return any(len(entry.weights) > 1 for entry in self.entries)

    @property
    def is_musdb18(self) -> bool:
        """Whether these are all of MUSDB18's test tracks, in full length.

        musdb's previews have the same names, but only 7 seconds each.
        """
        if not self.scored:
            return False
        settings, summary = self.first.settings, self.first.summary
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
        weights = weights_of(what)
        folders = run_folders(folder / label, len(weights))
        runs = [
            Run(run, read_json(run / scoring.SETTINGS), scoring.summarise(run))
            for run in folders
            if (run / scoring.SETTINGS).exists()
        ]
        path = folders[0] / MEASUREMENTS
        measured = read_json(path) if path.exists() else []
        entries.append(Entry(label, what["system"], weights, runs, measured))
    entries.sort(key=lambda entry: GROUPS.index(entry.kind.group))
    data_set = DataSet(folder.name, info, entries)
    for run in (run for entry in data_set.scored for run in entry.runs):
        _check_same(run, data_set.first)
    return data_set


def _check_same(run: Run, first: Run) -> None:
    """Raises ConfigError if two runs were not scored on the same."""
    for field in (*_SAME, "tracks"):
        ours, theirs = (
            each.summary["tracks"] if field == "tracks" else each.settings.get(field)
            for each in (run, first)
        )
        if ours != theirs:
            raise ConfigError(
                f"{run.folder / scoring.SETTINGS}: found {field} = {ours!r}, expected"
                f" {theirs!r} as in {first.folder}; compare them under another --name"
            )


def run_folders(folder: Path, runs: int) -> list[Path]:
    """Returns the folder of each run of a system: `folder` itself, or numbered ones in it."""
    return [folder] if runs == 1 else [folder / str(number) for number in range(runs)]


def weights_of(what: Mapping[str, Any]) -> list[str | None]:
    """Returns the names of the weights of each run of a system in dataset.json."""
    weights = what["weights"]
    return weights if isinstance(weights, list) else [weights]


def merged(path: Path, info: dict[str, Any], systems: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content for dataset.json: `info`, and earlier and new systems.

    Args:
      path: path of dataset.json, which need not exist.
      info: description of the data set.
      systems: label -> {"system", "weights"} of the new systems; the weights of several runs are a
        list. Earlier runs with scores keep their places in it.

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
        old = before["systems"].get(label, what)
        if old != what and not _continues(path.parent / label, old, what):
            names = (f"{each['system']} {_names(each)}" for each in (old, what))
            raise ConfigError(
                f"{path}: found {label} = {next(names)}, expected {next(names)}; choose another"
                " label"
            )
    return {**info, "systems": {**before["systems"], **systems}}


def _continues(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a system with several runs keeps those that have scores; one alone is in `folder`."""
    before, now = weights_of(old), weights_of(new)
    if old["system"] != new["system"] or len(before) == 1 or len(now) == 1:
        return False
    runs = zip(before, run_folders(folder, len(before)), strict=True)
    return all(
        now[number : number + 1] == [weights]
        for number, (weights, run) in enumerate(runs)
        if (run / scoring.SETTINGS).exists()
    )


def _names(what: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, weights_of(what)))


def check_tracks(folder: Path, labels: Sequence[str], tracks: Sequence[Any]) -> None:
    """Raises ConfigError if systems other than `labels` were scored on other tracks before."""
    now = {f"{track.split}/{track.name}" for track in tracks}
    scored_folders = [
        *folder.glob(f"*/{scoring.SETTINGS}"),
        *folder.glob(f"*/*/{scoring.SETTINGS}"),
    ]
    for path in sorted(settings.parent for settings in scored_folders):
        label, scored = path.relative_to(folder).parts[0], set(scored_tracks(path))
        if label not in labels and scored and scored != now:
            differ = ", ".join(sorted(scored ^ now)[:3])
            raise ConfigError(
                f"{path}: found scores of other tracks (differing: {differ}), expected"
                " the same for all systems; choose another --name, or give all systems again"
            )


def publish(work: Path, folder: Path) -> None:
    """Copies a run's scores and measurements into the report's folder.

    Args:
      work: folder with scores/ and measure_<round>.json.
      folder: folder of the run in the report.
    """
    scoring.publish(work / "scores", folder)
    if rounds := [read_json(path) for path in sorted(work.glob("measure_*.json"))]:
        write_whole(folder / MEASUREMENTS, to_json(rounds))


def to_json(value: Any) -> str:
    """Returns JSON without white space, as a report has many files."""
    return json.dumps(value, separators=(",", ":")) + "\n"
