r"""Separates, scores or prepares thousands of recordings on Apache Beam, file by file.

Examples:
  python -m experiments.catalogue separate --model=RUN --output_dir=OUT ALBUM/ song.flac
  python -m experiments.catalogue separate --model=RUN --output_dir=OUT --format=flac --list=FILES
  python -m experiments.catalogue score --model=RUN --data_dir=DATA --output_dir=SCORES
  python -m experiments.catalogue prepare --musdb_dir=MY_STEMS --data_dir=DATA --workers=4
  python -m experiments.catalogue separate --model=RUN --output_dir=OUT --list=FILES -- \
      --runner=FlinkRunner --flink_master=HOST:8081

It writes what experiments.separate, evaluate and prepare write, and takes their flags (`catalogue
separate --help`). A folder stands for the audio files in it, FILES has a path on each line.

What is finished is left alone: the same command goes on where it was stopped or killed. A bad file
stops nothing; the end is a table of what was done, skipped and failed, and why, and the exit code
is 1 if anything failed. Of a damaged recording what decodes is separated; it counts as failed every
time, until OUT/<name>/damaged.txt is removed, which says what is missing.

Work is done by processes of this machine, on a GPU best by one or two (--workers). What stands
behind `--` are Apache Beam's flags: any other of its runners needs this project installed where its
workers are, and one file system, with inputs, model and outputs at the same paths.
"""

import contextlib
import ctypes
import dataclasses
import functools
import importlib
import io
import json
import logging
import os
import pickle
import runpy
import shlex
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from data_pipeline import audio, tracks
from data_pipeline.wav import AudioError
from experiments import cli, evaluating, prepare, scoring, separate
from sccunet.config import Config, ConfigError, UserError
from sccunet.files import lock_folder, write_whole
from sccunet.reconstruction import Reconstruction
from sccunet.runs import load_config

# In a recording's folder of stems, beside them: what is missing.
_DAMAGED = "damaged.txt"
# Of records, in the output folder: <number of the unit> when it has ended, and before that
# <number>.begun; `stop` says why no unit can be done. No .json: those would be taken for scores.
_RECORDS, _BEGUN, _STOP = ".catalogue", ".begun", "stop"

_PR_SET_PDEATHSIG = 1  # ends a process with its parent
# Ctrl-C, which a terminal sends to all processes, is the launching one's: workers end with it.
_WORKER = "from experiments.catalogue import serve; serve()"
_WORKER_COMMAND = f"trap '' INT; exec {shlex.quote(sys.executable)} -c {shlex.quote(_WORKER)}"


@dataclasses.dataclass
class Plan:
    """What is left to do, and how.

    Attributes:
      output_dir: where it goes.
      units: a file's or track's name -> what `work` is given for it.
      work: does a unit in a worker process: (loaded, *units[name]) -> warnings, or None if that was
        finished already. Beam finds it, as `load`, by its module's name.
      load: gives `loaded`, such as a network, and remembers it: it is called for every unit.
      skipped: how many are finished.
      failed: why others cannot be begun, a line each.
      workers: processes for which there are cores and memory.
    """

    output_dir: Path
    units: Mapping[str, tuple]
    work: Callable[..., list[str] | None]
    load: Callable[[], Any] | None = None
    skipped: int = 0
    failed: Sequence[str] = ()
    workers: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)


@dataclasses.dataclass
class Outcome:
    """What became of it.

    Attributes:
      done: how many units were done.
      skipped: how many were finished before.
      failed: why the others were not, a line each.
      warnings: lines about units that were done.
    """

    done: int
    skipped: int
    failed: list[str]
    warnings: list[str]

    def table(self) -> str:
        """Counts, and a line for each failure."""
        counts = {"done": self.done, "skipped": self.skipped, "failed": len(self.failed)}
        lines = [f"{name:<8}{count:>8}" for name, count in counts.items()]
        lines += ["  " + why.replace("\n", "\\n") for why in self.failed]
        # Names can hold anything.
        return "\n".join(lines).encode(errors="backslashreplace").decode()


def plan_separation(files: Sequence[str]) -> Plan:
    """Which recordings are to be separated, as the flags say.

    Args:
      files: recordings, and folders of them.

    Raises:
      ConfigError: if the flags cannot be, or as `separate.plan`.
      AudioError: for a folder without audio files.
    """
    given = flags.FLAGS
    if given.list:
        lines = Path(given.list).read_text(errors="surrogateescape").split("\n")
        files = [*files, *filter(None, lines)]
    if not files:
        raise ConfigError("FILE: found none, expected recordings, folders of them, or --list")
    if "-" in files:
        raise ConfigError("FILE: found -, expected files: workers have no standard input")
    settings = separate.settings_of_flags()
    written = separate.names_written(**settings)
    # Other runners' workers are started elsewhere.
    inputs = [
        os.path.abspath(file)
        for path in files
        for file in (audio.recordings_in(path) if os.path.isdir(path) else [path])
    ]
    output_dir = os.path.abspath(given.output_dir) if given.output_dir else ""
    folders = separate.plan(inputs, output_dir, False, True, written)
    finished = {Path(output_dir) / Path(file).stem for file in inputs} - folders.keys()
    damaged = sorted(path for folder in finished if (path := folder / _DAMAGED).exists())
    return Plan(
        Path(output_dir),
        {file: (file, str(folder)) for folder, file in folders.items()},
        functools.partial(_separate, written=written, **settings),
        functools.partial(
            _separator, os.path.abspath(given.model), cli.reconstruction_of_flags(), given.precision
        ),
        skipped=len(finished) - len(damaged),
        failed=[os.fsdecode(path.read_bytes()).strip() for path in damaged],
    )


@functools.lru_cache(1)
def _separator(model: str, reconstruction: Reconstruction, precision: str):
    from sccunet.separation import Separator

    return Separator.load(model, reconstruction, precision)


def _separate(
    separator, file: str, folder: str, written: Sequence[str], **settings: Any
) -> list[str] | None:
    if all(os.path.exists(os.path.join(folder, name)) for name in written):
        return None
    separate.separate_file(separator, file, folder, damage_note=_DAMAGED, **settings)
    return []


def plan_scoring(files: Sequence[str]) -> Plan:
    """Which tracks are to be scored, as the flags say.

    Args:
      files: none.

    Raises:
      ConfigError: for a model that cannot be read, or a folder that holds scores of something else.
      AudioError: if there are no tracks.
    """
    given = flags.FLAGS
    model, data_dir = os.path.abspath(given.model), os.path.abspath(given.data_dir)
    output_dir = Path(os.path.abspath(given.output_dir))
    config, reconstruction = load_config(model), cli.reconstruction_of_flags()
    keys = _track_keys(data_dir, given.split)
    settings = evaluating.settings_of(
        model, config, str(Path(data_dir).resolve()), given.split, "model", None
    )
    if reconstruction.mask != "none":
        settings["reconstruction"] = dataclasses.asdict(reconstruction)
    evaluating.check_settings(output_dir, settings)
    units, failed, skipped = {}, [], 0
    for key in keys:
        if (output_dir / f"{key}.json").exists():
            skipped += 1
            continue
        try:
            units[key] = (tracks.load_track(data_dir, *key.split("/"), config, 1),)
        except AudioError as error:
            failed.append(str(error))
    plan = Plan(
        output_dir,
        units,
        functools.partial(_score, output_dir=str(output_dir)),
        functools.partial(_system, model, reconstruction),
        skipped,
        failed,
    )
    if units:
        write_whole(output_dir / scoring.SETTINGS, scoring.to_json(settings))
        plan.workers = evaluating.default_jobs([track for (track,) in units.values()], config, None)
    return plan


def _track_keys(data_dir: str, split: str) -> list[str]:
    keys = [f"{of}/{name}" for of, name in tracks.track_folders(data_dir) if of == split]
    if not keys:
        raise tracks.no_tracks(data_dir, (split,))
    return keys


@functools.lru_cache(1)
def _system(model: str, reconstruction: Reconstruction) -> tuple[Any, Config]:
    from experiments.baselines.systems import load_system

    config = load_config(model)
    return load_system("model", config, model, reconstruction=reconstruction), config


def _score(loaded: tuple[Any, Config], track: tracks.Track, output_dir: str) -> list[str] | None:
    system, config = loaded
    key = f"{track.split}/{track.name}"
    if os.path.exists(os.path.join(output_dir, f"{key}.json")):
        return None
    tracks.check_finite([track])
    references = tracks.read_stems(track, config)
    estimates = system.separate(tracks.read_mixture(track, config), references, key)
    if not np.isfinite(estimates).all():
        raise ConfigError(
            f"track {track.name}: found estimates that are NaN or infinite, expected numbers; the"
            " model is broken"
        )
    stems, rate = config.model.stems, config.model.sample_rate
    scoring.score_track(references, estimates, stems, rate, output_dir, key)
    return []


def _summarise() -> None:
    """Writes and prints the summary of all that is scored, if anything is."""
    given = flags.FLAGS
    output_dir = Path(given.output_dir)
    keys = _track_keys(given.data_dir, given.split)
    scored = [key for key in keys if (output_dir / f"{key}.json").exists()]
    if scored:
        summary = scoring.summarise(output_dir, scored)
        write_whole(output_dir / scoring.SUMMARY, scoring.to_json(summary))
        print(scoring.table(summary), end="\n\n")


def plan_preparation(files: Sequence[str]) -> Plan:
    """Which tracks are to be decoded, as the flags say.

    Args:
      files: none.

    Raises:
      AudioError: if there are no tracks.
    """
    given = flags.FLAGS
    musdb_dir, data_dir = os.path.abspath(given.musdb_dir), os.path.abspath(given.data_dir)
    if os.path.realpath(musdb_dir) == os.path.realpath(data_dir):
        raise AudioError(f"--data_dir={data_dir}: found --musdb_dir, expected another folder")
    units, failed, skipped = {}, [], 0
    for (split, name), path in prepare.find_inputs(musdb_dir).items():
        target = os.path.join(data_dir, split, name)
        try:
            sources = prepare.sources_of(path)
            if os.path.lexists(target):
                prepare.check_finished(target, sources, given.sample_rate)
                skipped += 1
            else:
                units[path] = (target, sources)
        except AudioError as error:
            failed.append(str(error))
    work = functools.partial(_prepare, sample_rate=given.sample_rate)
    return Plan(Path(data_dir), units, work, skipped=skipped, failed=failed)


def _prepare(_, target: str, sources: prepare.Sources, sample_rate: int) -> list[str] | None:
    if os.path.lexists(target):
        return None
    prepare.check_sources(sources)
    return prepare.prepare_track(target, sources, sample_rate)


def run(plan: Plan, beam_flags: Sequence[str] = (), workers: int | None = None) -> Outcome:
    """Has Beam's workers do what is left.

    Args:
      plan: what that is.
      beam_flags: Apache Beam's own; without a --runner, processes of this machine do the work.
      workers: how many; None takes the plan's.

    Raises:
      ConfigError: for flags that Beam refuses, if `plan.load` fails, or if another program is at
        work in the same folder.
    """
    outcome = Outcome(0, plan.skipped, list(plan.failed), [])
    if not plan.units:
        return outcome
    with _empty_records(plan.output_dir) as records:
        with _progress(records, len(plan.units)):
            _run_pipeline(plan, records, beam_flags, min(workers or plan.workers, len(plan.units)))
        if (records / _STOP).exists():
            raise ConfigError((records / _STOP).read_text())
        for number, name in enumerate(plan.units):
            try:
                record = json.loads((records / str(number)).read_text())
            except FileNotFoundError:
                outcome.failed.append(
                    f"{name}: found no record of it in {records} when Beam had ended, expected one:"
                    " the disk may be full, or the workers' another one"
                )
                continue
            outcome.done += record["status"] == "done"
            outcome.skipped += record["status"] == "skipped"
            outcome.failed += record["failed"]
            outcome.warnings += record["warnings"]
    return outcome


@contextlib.contextmanager
def _empty_records(output_dir: Path) -> Iterator[Path]:
    """A folder for the workers' records, for this program alone; what a killed one left is gone."""
    records = output_dir / _RECORDS
    records.mkdir(parents=True, exist_ok=True)
    with lock_folder(records) as ours:
        if not ours:
            raise ConfigError(
                f"{output_dir}: found another catalogue program at work in it, expected none"
            )
        for left in records.iterdir():
            if left.name != ".lock":
                left.unlink()
        try:
            yield records
        finally:
            shutil.rmtree(records)


@contextlib.contextmanager
def _progress(records: Path, units: int) -> Iterator[None]:
    """Shows in a bar how many units have ended."""
    from tqdm import tqdm

    end = threading.Event()
    bar = tqdm(total=units, unit="file", disable=None)

    def show() -> None:
        while not end.wait(1):
            bar.update(_ended(records) - bar.n)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        bar.update(_ended(records) - bar.n)
        bar.close()


def _ended(records: Path) -> int:
    return sum(name.isdigit() for name in os.listdir(records))


def _run_pipeline(plan: Plan, records: Path, beam_flags: Sequence[str], workers: int) -> None:
    with _without_warnings():
        import apache_beam as beam
        from apache_beam.options import pipeline_options
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        from apache_beam.transforms.environments import SubprocessSDKEnvironment

        usage = io.StringIO()
        try:
            with contextlib.redirect_stderr(usage):
                options = pipeline_options.PipelineOptions(
                    [f"--direct_num_workers={workers}", *beam_flags]
                )
                options.get_all_options()
        except SystemExit as error:
            reason = usage.getvalue().rpartition("error: ")[2].strip()
            raise ConfigError(f"Beam's flags: {reason}") from error
    with contextlib.ExitStack() as stack:
        runner = options.view_as(pipeline_options.StandardOptions).runner
        if (runner or "direct").lower().removesuffix("runner") == "direct":
            workers = options.view_as(pipeline_options.DirectOptions).direct_num_workers
            stack.enter_context(_local(list(plan.units), records, workers))
            # By its name, a DirectRunner would first try to download another runner (Prism).
            runner = FnApiRunner(SubprocessSDKEnvironment.from_command_string(_WORKER_COMMAND))
        try:
            pipeline = beam.Pipeline(runner=runner, options=options)
        except ValueError as error:
            raise ConfigError(f"Beam's flags: {' '.join(str(error).split())}") from error
        # In bytes, as Beam cannot code names that are no UTF-8.
        units = [
            pickle.dumps((number, name, arguments))
            for number, (name, arguments) in enumerate(plan.units.items())
        ]
        # Create reshuffles, else one worker would do all.
        _ = pipeline | beam.Create(units) | beam.Map(do, plan.work, plan.load, str(records))
        try:
            pipeline.run().wait_until_finish()
        except RuntimeError as error:
            raise ConfigError(f"Beam: {str(error).strip().splitlines()[-1]}") from error


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Beam's are about packages that it does not need here."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _local(names: Sequence[str], records: Path, workers: int) -> Iterator[None]:
    """What Beam leaves to do where its workers are processes of this machine."""
    import grpc

    cores = os.cpu_count() or 1
    threads = str(max(1, cores // (workers or cores)))  # Beam's 0 is one per core
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", *evaluating.ONE_THREAD):
        os.environ.setdefault(name, threads)
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # else one process takes it all
    os.environ.setdefault("TQDM_DISABLE", "1")  # a bar per file and process would be too many
    # What stops it is raised besides.
    logging.getLogger("apache_beam.runners").setLevel(logging.CRITICAL)
    once = threading.Lock()

    def end(arguments: threading.ExceptHookArgs) -> None:
        died = arguments.thread.name == "run_worker"
        if not died and not isinstance(arguments.exc_value, grpc.RpcError):
            threading.__excepthook__(arguments)
        elif _ended(records) < len(names) and once.acquire(blocking=False):
            at_work = [
                name
                for number, name in enumerate(names)
                if (records / f"{number}{_BEGUN}").exists() and not (records / str(number)).exists()
            ]
            cli.report(
                f"found that a worker process died (out of memory?), at work on"
                f" {' or '.join(at_work) or 'nothing yet'}; what is finished is kept, run again,"
                " perhaps with fewer --workers"
            )
            os._exit(1)

    def interrupt(*_: Any) -> None:
        cli.report("interrupted")
        os._exit(128 + signal.SIGINT)

    # Beam waits forever for a worker that has died (its issue 19674), and at Ctrl-C until the
    # workers are through with all they have been given.
    threading.excepthook, before = end, threading.excepthook
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # shells have background jobs ignore it
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        threading.excepthook = before
        signal.signal(signal.SIGINT, handler)


def serve() -> None:
    """A worker process of this machine: Beam's, without its notes on itself."""
    with contextlib.suppress(AttributeError):  # Linux; elsewhere a broken connection ends it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    logging.disable()
    runpy.run_module("apache_beam.runners.worker.sdk_worker_main", run_name="__main__")


def do(
    unit: bytes,
    work: Callable[..., list[str] | None],
    load: Callable[[], Any] | None,
    records: str,
) -> None:
    """Does a unit in a worker process, and leaves a record of how it ended.

    Args:
      unit: its number, name and arguments of `work`, pickled.
      work: as in `Plan`.
      load: as in `Plan`.
      records: the folder.
    """
    number, name, arguments = pickle.loads(unit)
    record, stop = Path(records) / str(number), Path(records) / _STOP
    if record.exists() or stop.exists():  # runners may give a unit a second time
        return
    _write_record(record.with_suffix(_BEGUN), "")
    try:
        loaded = load() if load else None
    except UserError as error:
        _write_record(stop, str(error))
        return
    result = {"status": "failed", "failed": [], "warnings": []}
    try:
        warnings = work(loaded, *arguments)
        result["status"] = "skipped" if warnings is None else "done"
        result["warnings"] = warnings or []
    except UserError as error:
        result["failed"] = [str(error)]
    except Exception as error:  # nobody's mistake that is known, but thousands of others wait
        traceback.print_exc()
        result["failed"] = [f"{name}: {type(error).__name__}: {error}"]
    _write_record(record, json.dumps(result))


def _write_record(path: Path, content: str) -> None:
    with contextlib.suppress(OSError):  # if the disk is full, the launching process misses it
        write_whole(path, content)


_PLANS = {"separate": plan_separation, "score": plan_scoring, "prepare": plan_preparation}


def main(action: str, beam_flags: Sequence[str], files: Sequence[str]) -> None:
    """Looks for what is left to do, has it done, and prints what became of it."""
    if action not in _PLANS:
        found = action or "none"
        raise ConfigError(f"ACTION: found {found}, expected separate, score or prepare to be first")
    if files and action != "separate":
        raise ConfigError(f"found the argument {files[0]!r}, expected only --flags")
    try:
        with _without_warnings():
            importlib.import_module("apache_beam")
    except ModuleNotFoundError as error:
        raise ConfigError(
            'apache-beam: not installed, expected pip install -e ".[beam]"'
        ) from error
    outcome = run(_PLANS[action](files), beam_flags, flags.FLAGS.workers)
    if action == "score":
        _summarise()
    for warning in outcome.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(outcome.table())
    if outcome.failed:
        sys.exit(1)


def _define_flags(action: str) -> None:
    """The flags of an action, named as in the program of that action."""
    flags.DEFINE_integer(
        "workers",
        None,
        "Processes on this machine. Default: one per core, and for scores as memory allows.",
        lower_bound=1,
    )
    if action == "score":
        flags.DEFINE_string(
            "model", None, "A training workdir or an exported SavedModel.", required=True
        )
        flags.DEFINE_string("output_dir", None, "Where the scores go.", required=True)
        cli.define_reconstruction()
    if action in ("score", "prepare"):
        what = "Tracks in the MUSDB18-HQ layout" if action == "score" else "Output: 16-bit WAVs"
        flags.DEFINE_string("data_dir", None, f"{what}, <split>/<track>/<stem>.wav.", required=True)
    if action == "score":
        flags.DEFINE_string("split", "test", "Which tracks to score.")
    if action == "prepare":
        flags.DEFINE_string(
            "musdb_dir",
            None,
            "Input: <split>/<track>.stem.mp4 or <split>/<track>/<stem>.*",
            required=True,
        )
        flags.DEFINE_integer("sample_rate", 44_100, "Of the output, in Hz.", lower_bound=1)
    if action == "separate":
        flags.DEFINE_string("list", None, "A file with the path of a recording on each line.")
        separate.define_flags()
        flags.adopt_module_key_flags(separate)


def _take_arguments(argv: list[str]) -> tuple[str, list[str]]:
    """Takes the action, and what stands behind `--`, out of a command line."""
    end = argv.index("--") if "--" in argv else len(argv)
    beam_flags = argv[end + 1 :]
    del argv[end:]
    action = argv.pop(1) if len(argv) > 1 and not argv[1].startswith("-") else ""
    return action, beam_flags


if __name__ == "__main__":
    # Beam's workers look functions up by the name of their module, which must not be __main__.
    from experiments import catalogue

    _ACTION, _BEAM_FLAGS = _take_arguments(sys.argv)
    _define_flags(_ACTION)
    if _ACTION not in _PLANS:  # its flags are unknown, too
        sys.argv[1:] = {"-h", "--help", "--helpfull"} & {*sys.argv}
    cli.run(functools.partial(catalogue.main, _ACTION, _BEAM_FLAGS), takes_files=True)
