r"""Scores and measures several systems on the same tracks, and writes a report.

Examples:
  python -m experiments.compare --report_dir=REPORT --name="Rendered songs" --data_dir=DATA \
      --model=RUN --systems=model,mixture,scaled,openunmix=umxhq,irm --note="Sung speech."
  python -m experiments.compare --report_dir=REPORT --name=MUSDB18 --data_dir=DATA \
      --config=experiments/configs/paper_4stems.py --systems=ours:model=RUN,theirs:folder=ESTIMATES
  python -m experiments.compare --report_dir=REPORT

A system is [label:]system[=weights], system and weights being experiments.evaluate's; weights of
model are another training workdir than --model's. Each runs in processes of its own. Started again,
the program does only what is missing; a system more under the same name joins the others. The last
example makes the report anew from the JSON in REPORT.

Written into REPORT: README.md, two pictures and the scores of each data set, all without paths of
this machine. Scores in the making and audio stay in --work_dir.
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.baselines.systems import ORACLES, SYSTEMS, WITH_WEIGHTS
from sccunet.config import Config, ConfigError
from sccunet.files import write_whole
from sccunet.runs import CONFIG, load_config

_ROUNDS = 3  # each system is measured so often, in turns
_MEASURED_SECONDS = 30.0  # of a track, where whole tracks are scored
_EXAMPLE_SECONDS = 6.0
_WITHOUT_MEASURE = ("mixture", "scaled", "folder")  # nothing of it would be shown


@dataclasses.dataclass(frozen=True)
class Choice:
    """A system of a comparison: its label in the report, its name and its weights."""

    label: str
    system: str
    weights: str | None


def parse_systems(values: Sequence[str]) -> list[Choice]:
    """Each "[label:]system[=weights]"; the label is the system's name where there is none.

    Raises:
      ConfigError: for an unknown system, weights that are missing or not wanted, or a label that is
        used twice or cannot be a folder's name.
    """
    entries: list[Choice] = []
    for value in values:
        head, _, weights = value.partition("=")
        label, _, system = head.rpartition(":")
        label = label or system
        where = f"--systems: {value}:"
        if system not in SYSTEMS:
            raise ConfigError(f"{where} found {system!r}, expected one of {', '.join(SYSTEMS)}")
        if system in WITH_WEIGHTS and not weights:
            raise ConfigError(f"{where} found no weights, expected {system}=WEIGHTS")
        if weights and system not in (*WITH_WEIGHTS, "model"):
            raise ConfigError(f"{where} found weights, expected none")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.+-]*", label):
            raise ConfigError(
                f"{where} found the label {label!r}, expected letters, digits, spaces and _ . + -"
            )
        if label in [entry.label for entry in entries]:
            raise ConfigError(
                f"{where} found the label {label!r} twice, expected [label:]system[=weights]"
            )
        entries.append(Choice(label, system, weights or None))
    return entries


def compare(
    report_dir: str | os.PathLike,
    name: str,
    systems: Sequence[Choice],
    data_dir: str | os.PathLike,
    work_dir: str | os.PathLike,
    model: str | os.PathLike | None = None,
    config: Config | None = None,
    config_name: str | None = None,
    overrides: Sequence[str] = (),
    split: str = "test",
    tracks: Sequence[str] = (),
    excerpt: float | None = None,
    note: str = "",
) -> list[str]:
    """Scores and measures systems, and puts the results into a report's folder.

    Args:
      report_dir: the report's.
      name: of the data set in the report.
      systems: what to compare.
      data_dir: tracks in the MUSDB18-HQ layout.
      work_dir: for scores in the making, and audio.
      model: training workdir or exported SavedModel; "model" without weights is this one.
      config: says which stems are scored where there is no model.
      config_name: of the config, as the report's command names it.
      overrides: flags that changed the config, for the report's command.
      split: which tracks, if none are named.
      tracks: score these instead, wherever they are.
      excerpt: separate and score so many seconds from the middle of each track; None takes all.
      note: what the data are, a sentence or two.

    Returns:
      The labels of systems that failed; what they had to say is on standard error.

    Raises:
      ConfigError: for a model that cannot be read, or a report of something else.
      AudioError: for tracks that cannot be found or read.
    """
    from data_pipeline.tracks import find_tracks, middle
    from experiments.reports import report

    if model:
        config, config_name = load_config(model), None
    elif config is None:
        raise ConfigError("--model: not given, expected a training workdir, or a --config")
    slug = report.slug(name)
    if not slug:
        raise ConfigError(f"--name: found {name!r}, expected letters or digits")
    for entry in systems:
        _check_model(entry, model, config)
    found = find_tracks(data_dir, config, split=split, names=tracks)
    if config_name and Path(config_name).is_absolute():
        config_name = Path(config_name).name
    chosen = {"split": split, "tracks": list(tracks), "excerpt": excerpt, "config": config_name}
    chosen["overrides"] = list(overrides)
    info_path = Path(report_dir) / slug / report.DATA_SET
    info = _merged(info_path, {"name": name, "note": note, **chosen}, systems)

    _check_tracks(info_path.parent, [entry.label for entry in systems], found)

    work = Path(work_dir) / slug
    write_whole(work / "_config" / CONFIG, config.to_json())
    common = [f"--data_dir={data_dir}", f"--split={split}"]
    if tracks:
        common.append(f"--tracks={report.flag_list(tracks)}")
    failed = []
    for entry in systems:
        arguments = [*_system_arguments(entry, model, work), *common]
        if excerpt:
            arguments.append(f"--excerpt={excerpt}")
        scores = work / entry.label / "scores"
        if cli.run_program("evaluate", *arguments, f"--output_dir={scores}"):
            failed.append(entry.label)
    measured = [
        entry
        for entry in systems
        if entry.label not in failed and entry.system not in _WITHOUT_MEASURE
    ]
    first = f"{found[0].split}/{found[0].name}"
    measured_part = middle(found[0], excerpt or _MEASURED_SECONDS, config)
    if not excerpt:
        measured_part = _liveliest(found[0], config, (0, found[0].frames), measured_part[1])
    start = measured_part[0] / config.model.sample_rate
    for turn in range(_ROUNDS):
        for entry in measured:
            if entry.label in failed or (turn and entry.system in ORACLES):
                continue  # of an oracle only the estimates are wanted
            output = work / entry.label / f"measure_{turn}.json"
            if _is_measured(output, work / entry.label / "scores", first, start):
                continue
            arguments = [*_system_arguments(entry, model, work), *common, "--repeats=1"]
            arguments += [f"--excerpt={excerpt or _MEASURED_SECONDS}", f"--start={start}"]
            arguments.append(f"--output={output}")
            if not turn:
                arguments.append(f"--estimates_dir={work / entry.label / 'estimates'}")
            if cli.run_program("measure", *arguments):
                failed.append(entry.label)
    for entry in systems:
        if entry.system == "folder" and entry.label not in failed:
            kept = work / entry.label / "estimates"
            _keep_estimates(entry, found[0], config, measured_part, kept)

    for entry in systems:
        if entry.label not in failed:
            _publish(work / entry.label, Path(report_dir) / slug / entry.label)
    write_whole(info_path, _json(info))
    labels = [entry.label for entry in report.read_data_set(info_path.parent).entries]
    path = Path(report_dir) / f"{slug}_spectrograms.png"
    if example := _draw_example(found[0], config, labels, work, measured_part, path):
        write_whole(info_path, _json({**info, "example": example}))
    report.write_report(report_dir)
    return failed


def _check_model(entry: Choice, model: str | os.PathLike | None, config: Config) -> None:
    """Raises ConfigError if the system is a model that is not there or has other stems."""
    if entry.system != "model":
        return
    if not (entry.weights or model):
        raise ConfigError("--model: not given, expected a training workdir for the system model")
    own = load_config(entry.weights or model)

    def scored(config: Config):
        stems = {stem: config.files_of(stem) for stem in config.model.stems}
        return list(stems.items()), config.model.sample_rate

    if scored(own) != scored(config):
        raise ConfigError(
            f"{entry.weights or model}: found a model of {', '.join(own.model.stems)} at"
            f" {own.model.sample_rate} Hz, expected the stems {', '.join(config.model.stems)} of"
            f" the same files at {config.model.sample_rate} Hz; compare it under another --name"
        )


def _check_tracks(folder: Path, labels: Sequence[str], tracks: Sequence[Any]) -> None:
    """Raises ConfigError if other systems than `labels` were scored on other tracks before."""
    before: dict[str, set[str]] = {}
    for path in folder.glob("*/*/*.json"):  # <label>/<split>/<track>.json
        label, split, name = path.relative_to(folder).parts
        before.setdefault(label, set()).add(f"{split}/{name.removesuffix('.json')}")
    now = {f"{track.split}/{track.name}" for track in tracks}
    for label, scored in before.items():
        if label not in labels and scored != now:
            differ = ", ".join(sorted(scored ^ now)[:3])
            raise ConfigError(
                f"{folder / label}: found scores of other tracks (not in both: {differ}), expected"
                " the same for all; choose another --name, or name all systems again"
            )


def _liveliest(track: Any, config: Config, part: tuple[int, int], frames: int) -> tuple[int, int]:
    """First sample and length of so much in a part of a track, where its quietest stem is loudest.

    Elsewhere a picture may show the silence of a stem.
    """
    from data_pipeline.tracks import read_stems

    first, length = part
    second = config.model.sample_rate
    if length - frames < second:
        return first, min(length, frames)
    stems = read_stems(track, config, first, length)[:, : length // second * second]
    powers = (stems**2).reshape(len(stems), -1, second * stems.shape[2]).sum(axis=2)
    seconds = max(1, frames // second)
    windows = np.apply_along_axis(np.convolve, 1, powers, np.ones(seconds), "valid")
    starts = first + second * np.arange(windows.shape[1])
    fits = starts + frames <= first + length
    return int(starts[fits][windows.min(axis=0)[fits].argmax()]), frames


def _is_measured(output: Path, scores: Path, track: str, start: float) -> bool:
    """Whether a measurement is there, of this part of this track, not older than the scores."""
    from experiments import scoring

    if not output.exists():
        return False
    found = json.loads(output.read_text())
    return (found["track"], found["start_seconds"]) == (
        track,
        start,
    ) and output.stat().st_mtime_ns >= (scores / scoring.SETTINGS).stat().st_mtime_ns


def _merged(path: Path, info: dict[str, Any], systems: Sequence[Choice]) -> dict[str, Any]:
    """What to write into dataset.json: `info`, and the systems of before beside the new ones.

    Raises:
      ConfigError: if something else was scored before.
    """
    before: Mapping[str, Any] = {"systems": {}}
    if path.exists():
        before = json.loads(path.read_text())
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
    new = {
        entry.label: {
            "system": entry.system,
            # A path is of this machine.
            "weights": Path(entry.weights).name if entry.weights else None,
        }
        for entry in systems
    }
    for label, what in new.items():
        if (old := before["systems"].get(label, what)) != what:
            raise ConfigError(
                f"{path}: found {label} = {old['system']} {old['weights'] or ''}, expected"
                f" {what['system']} {what['weights'] or ''}; choose another label"
            )
    return {**info, "systems": {**before["systems"], **new}}


def _system_arguments(entry: Choice, model: str | os.PathLike | None, work: Path) -> list[str]:
    if entry.system == "model":
        return [f"--model={entry.weights or model}"]
    arguments = [f"--system={entry.system}", f"--model={model or work / '_config'}"]
    return arguments + ([f"--weights={entry.weights}"] if entry.weights else [])


def _json(value: Any) -> str:
    """Text without white space, for there are many files."""
    return json.dumps(value, separators=(",", ":")) + "\n"


def _publish(work: Path, folder: Path) -> None:
    """Puts a system's scores and measurements into the report's folder."""
    from experiments import scoring
    from experiments.reports import report

    scoring.publish(work / "scores", folder)
    if rounds := [json.loads(path.read_text()) for path in sorted(work.glob("measure_*.json"))]:
        write_whole(folder / report.MEASUREMENTS, _json(rounds))


def _keep_estimates(
    entry: Choice, track: Any, config: Config, part: tuple[int, int], folder: Path
) -> None:
    """Of a folder of estimates: keeps the part that the other systems are measured with."""
    from data_pipeline import audio
    from experiments.baselines.systems import read_estimates

    estimates = read_estimates(entry.weights, f"{track.split}/{track.name}", config)
    start, frames = part
    if estimates.shape[1] == track.frames:
        estimates = estimates[:, start : start + frames]
    for stem, samples in zip(config.model.stems, estimates, strict=True):
        audio.write_wav(folder / f"{stem}.wav", samples, config.model.sample_rate, "float32")


def _draw_example(
    track: Any,
    config: Config,
    labels: Sequence[str],
    work: Path,
    part: tuple[int, int],
    path: Path,
) -> dict[str, Any] | None:
    """Draws the spectrograms of the estimates that were kept; where they are from, None for none.

    Args:
      track: that was measured.
      config: names the stems.
      labels: of the systems, in the order of the columns.
      work: holds <label>/estimates/<stem>.wav.
      part: first sample and length of the estimates.
      path: the PNG.
    """
    from data_pipeline.tracks import read_mixture, read_stems
    from experiments.baselines.systems import read_estimates
    from experiments.reports import spectrograms

    stems, rate = config.model.stems, config.model.sample_rate
    start, frames = _liveliest(track, config, part, round(_EXAMPLE_SECONDS * rate))
    first = start - part[0]

    def mono(signals):  # [stems, samples, channels]
        return dict(zip(stems, signals.mean(axis=2), strict=True))

    estimates = {
        label: mono(read_estimates(work / label / "estimates", ".", config)[:, first:][:, :frames])
        for label in labels
        if (work / label / "estimates").is_dir()
    }
    if not estimates:
        return None
    mixture = read_mixture(track, config, start, frames)
    columns = {
        "mixture": mono(mixture[None].repeat(len(stems), axis=0)),
        "truth": mono(read_stems(track, config, start, frames)),
        **estimates,
    }
    spectrograms.of_systems(columns, rate, path)
    key = f"{track.split}/{track.name}"
    return {"track": key, "start_seconds": start / rate, "seconds": frames / rate}


def main(_: Sequence[str]) -> None:
    """Compares as the flags say; without a data directory makes the report anew."""
    from experiments.reports import report

    path = Path(_REPORT_DIR.value) / report.README
    if not _DATA_DIR.value:
        for holder in (_NAME, _SYSTEMS):
            if holder.value:
                raise ConfigError(f"--data_dir: not given, expected tracks for --{holder.name}")
        report.write_report(_REPORT_DIR.value)
        print(path)
        return
    for holder in (_NAME, _SYSTEMS):
        if not holder.value:
            raise ConfigError(f"--{holder.name}: not given, expected a value with --data_dir")
    systems = parse_systems(_SYSTEMS.value)
    failed = compare(
        _REPORT_DIR.value,
        _NAME.value,
        systems,
        _DATA_DIR.value,
        _WORK_DIR.value,
        model=_MODEL.value,
        config=Config.from_dict(_CONFIG.value) if _CONFIG.value else None,
        config_name=flags.FLAGS["config"].config_filename if _CONFIG.value else None,
        overrides=cli.config_overrides() if _CONFIG.value else [],
        split=_SPLIT.value,
        tracks=_TRACKS.value,
        excerpt=_EXCERPT.value,
        note=_NOTE.value,
    )
    print(f"\n{path}")
    if failed:
        raise ConfigError(
            f"--systems: found {', '.join(failed)} failed (see above), expected scores and"
            " measurements of each; the report has what there is. To score a system anew remove its"
            f" folder in {_WORK_DIR.value}"
        )


if __name__ == "__main__":
    _REPORT_DIR = flags.DEFINE_string("report_dir", None, "Of the report.", required=True)
    _NAME = flags.DEFINE_string("name", None, "Of the data set in the report.")
    _NOTE = flags.DEFINE_string("note", "", "What the data are, a sentence or two for the report.")
    _SYSTEMS = flags.DEFINE_list(
        "systems",
        [],
        "What to compare, each [label:]system[=weights]. Systems: " + ", ".join(SYSTEMS) + ".",
    )
    _MODEL = flags.DEFINE_string("model", None, "Training workdir or exported SavedModel.")
    _CONFIG = config_flags.DEFINE_config_file(
        "config", None, "Without a model: what is scored, a file of configs/."
    )
    _DATA_DIR = flags.DEFINE_string("data_dir", None, "Tracks in the MUSDB18-HQ layout.")
    _SPLIT = flags.DEFINE_string("split", "test", "Which tracks to score.")
    _TRACKS = flags.DEFINE_list("tracks", [], "Score these tracks instead, wherever they are.")
    _EXCERPT = flags.DEFINE_float(
        "excerpt",
        None,
        "Separate and score so many seconds from the middle of each track. Default: all of it.",
        lower_bound=1,
    )
    _WORK_DIR = flags.DEFINE_string(
        "work_dir", "compare_work", "For scores in the making, and audio; not to be committed."
    )
    cli.run(main)
