"""Runs thousands of units on Apache Beam's workers and collects how each ended."""

import contextlib
import dataclasses
import io
import logging
import os
import pickle
import shlex
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from experiments import cli, missing
from experiments.beam import worker
from experiments.evaluating import ONE_THREAD
from sccunet.config import ConfigError
from sccunet.files import lock_folder, read_json

# A folder in the output folder, for the lock and the records; scores never have this name.
_OURS = ".catalogue"

# A terminal sends Ctrl-C to all processes. The launching one handles it, and workers end with it.
_WORKER = f"from {worker.__name__} import serve; serve({{launcher}})"

# On Dask a partition is a unit, so that a worker takes the next one when it is done. Dask advises
# against more tasks than this; then a partition has several units.
_MOST_PARTITIONS = 10_000


@dataclasses.dataclass
class Plan:
    """What is left to do, and how.

    Attributes:
      output_dir: folder of the results.
      units: name of a file or track -> arguments of `work`.
      work: processes a unit in a worker process: (loaded, *units[name]) -> warnings, or None if the
        unit was finished already. Beam imports `work` and `load` by their module's name.
      load: returns `loaded`, such as a network. It is called for every unit, so it must cache.
      skipped: number of units that are finished already.
      failed: a line for each unit that cannot be started, with the reason.
      workers: number of processes for which there are cores and memory.
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
    """The result of a run.

    Attributes:
      done: number of units that were processed.
      skipped: number of units that were finished before.
      failed: a line for each other unit, with the reason.
      warnings: lines about processed units.
    """

    done: int
    skipped: int
    failed: list[str]
    warnings: list[str]

    def table(self) -> str:
        """Returns the counts, and a line for each failure."""
        counts = {"done": self.done, "skipped": self.skipped, "failed": len(self.failed)}
        lines = [f"{name:<8}{count:>8}" for name, count in counts.items()]
        lines += ["  " + why.replace("\n", "\\n") for why in self.failed]
        # Names can contain any bytes.
        return "\n".join(lines).encode(errors="backslashreplace").decode()


def run(plan: Plan, beam_flags: Sequence[str] = (), workers: int | None = None) -> Outcome:
    """Runs a plan's units on Beam's workers.

    Args:
      plan: what is left to do.
      beam_flags: flags of Apache Beam; without a --runner, the workers are local processes.
      workers: number of local processes; None: the plan's.

    Raises:
      ConfigError: for flags that Beam refuses, for `workers` beside another runner, if `plan.load`
        fails, or if another catalogue is running in the same folder.
    """
    outcome = Outcome(0, plan.skipped, list(plan.failed), [])
    if not plan.units:
        return outcome
    with _empty_records(plan.output_dir) as records:
        with _progress(records, len(plan.units)):
            _run_pipeline(plan, records, beam_flags, workers)
        if (records / worker.STOP).exists():
            raise ConfigError((records / worker.STOP).read_text(errors="surrogateescape"))
        for number, name in enumerate(plan.units):
            try:
                record = read_json(records / str(number))
            except FileNotFoundError:
                outcome.failed.append(
                    f"{name}: found no record of it in {records} when Beam had ended, expected one;"
                    " the disk may be full, or the workers may see another file system"
                )
                continue
            outcome.done += record["status"] == "done"
            outcome.skipped += record["status"] == "skipped"
            outcome.failed += record["failed"]
            outcome.warnings += record["warnings"]
    return outcome


@contextlib.contextmanager
def _empty_records(output_dir: Path) -> Iterator[Path]:
    """Locks and empties the folder for the workers' records; removes it at the end."""
    ours = output_dir / _OURS
    ours.mkdir(parents=True, exist_ok=True)
    with lock_folder(ours) as locked:
        if not locked:
            raise ConfigError(f"{output_dir}: found another catalogue running in it, expected none")
        # On other machines, a killed program's workers may still write: what they miss stops them.
        for left in ours.glob("records-*"):
            left.rename(left.with_name(f"old-{left.name}"))
        for left in ours.glob("old-*"):
            shutil.rmtree(left, ignore_errors=True)
        records = ours / f"records-{uuid.uuid4().hex}"
        records.mkdir()
        try:
            yield records
        finally:
            shutil.rmtree(ours, ignore_errors=True)


@contextlib.contextmanager
def _progress(records: Path, units: int) -> Iterator[None]:
    """Shows the number of ended units in a progress bar."""
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


def _at_work(names: Iterable[str], records: Path) -> list[str]:
    """Returns the units that have begun and not ended."""
    return [
        name
        for number, name in enumerate(names)
        if (records / f"{number}{worker.BEGUN}").exists() and not (records / str(number)).exists()
    ]


def _ended(records: Path) -> int:
    return sum(name.isdigit() for name in os.listdir(records))


def _run_pipeline(plan: Plan, records: Path, beam_flags: Sequence[str], wanted: int | None) -> None:
    workers = min(wanted or plan.workers, len(plan.units))
    with without_warnings():
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
        kind = (runner or "direct").lower().removesuffix("runner")
        if kind == "direct":
            workers = options.view_as(pipeline_options.DirectOptions).direct_num_workers
            stack.enter_context(_local(list(plan.units), records, workers))
            # The runner named DirectRunner would first try to download another one (Prism).
            code = _WORKER.format(launcher=os.getpid())
            command = f"trap '' INT; exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
            runner = FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))
        elif wanted:
            raise ConfigError(
                f"--workers: given, expected none beside --runner={runner}, which has its own"
            )
        if kind == "dask":
            runner = _dask_runner(options, len(plan.units))
        try:
            pipeline = beam.Pipeline(runner=runner, options=options)
        except ValueError as error:
            raise ConfigError(f"Beam's flags: {' '.join(str(error).split())}") from error
        # Pickled, because Beam cannot encode names that are not valid UTF-8.
        units = [
            pickle.dumps((number, name, arguments))
            for number, (name, arguments) in enumerate(plan.units.items())
        ]
        # Create also reshuffles; otherwise one worker would do everything.
        _ = pipeline | beam.Create(units) | beam.Map(worker.do, plan.work, plan.load, str(records))
        try:
            running = pipeline.run()
            if kind == "dask":  # otherwise its messages would go on to the program's end
                stack.callback(running.client.close)
            running.wait_until_finish()
        except Exception as error:  # of any library that a runner uses
            reason = (str(error).strip().splitlines() or [""])[-1]
            at_work = " or ".join(_at_work(plan.units, records))
            where = f" while working on {at_work}" if at_work else ""
            raise ConfigError(f"Beam: {type(error).__name__}{where}: {reason}") from error


def _dask_runner(options, units: int):
    """Returns Beam's runner on Dask, whose name Beam does not know, and sets its partitions.

    Raises:
      UserError: if Dask is not installed, or no cluster is named: on this machine alone, the
        workers are local processes.
    """
    missing.check("distributed", flag="--runner=DaskRunner")
    from apache_beam.runners.dask.dask_runner import DaskOptions, DaskRunner

    given = options.view_as(DaskOptions)
    if not (given.address or given.scheduler_file):
        raise ConfigError(
            "--dask_client_address: found none, expected that of a Dask scheduler, such as"
            " tcp://HOST:8786"
        )
    if not (given.npartitions or given.partition_size):
        given.npartitions = min(units, _MOST_PARTITIONS)
    return DaskRunner()


def beam_flags() -> Set[str]:
    """Returns the names of Apache Beam's flags.

    Raises:
      ModuleNotFoundError: if Beam is not installed.
    """
    with without_warnings():
        from apache_beam.options.pipeline_options import PipelineOptions

        return PipelineOptions([]).get_all_options().keys()


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Silences Beam's warnings about packages that are not needed here."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _local(names: Sequence[str], records: Path, workers: int) -> Iterator[None]:
    """Sets threads, GPU memory and error handling for workers that are local processes."""
    import grpc

    cores = os.cpu_count() or 1
    threads = str(max(1, cores // (workers or cores)))  # for Beam, 0 means one per core
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", *ONE_THREAD):
        os.environ.setdefault(name, threads)
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # otherwise one process takes it all
    os.environ.setdefault("TQDM_DISABLE", "1")  # a bar per file and process would be too many
    # Errors that stop the pipeline are raised as well.
    logging.getLogger("apache_beam.runners").setLevel(logging.CRITICAL)
    once = threading.Lock()

    def end(arguments: threading.ExceptHookArgs) -> None:
        died = arguments.thread.name == "run_worker"
        if not died and not isinstance(arguments.exc_value, grpc.RpcError):
            threading.__excepthook__(arguments)
        elif _ended(records) < len(names) and once.acquire(blocking=False):
            cli.report(
                f"a worker process died (out of memory?) while working on"
                f" {' or '.join(_at_work(names, records)) or 'nothing yet'}; finished files are"
                " kept: run again, perhaps with fewer --workers"
            )
            os._exit(1)

    def interrupt(*_: Any) -> None:
        cli.report("interrupted")
        os._exit(128 + signal.SIGINT)

    # Beam waits forever for a worker that has died (its issue 19674). After Ctrl-C it waits until
    # the workers have finished everything they were given.
    threading.excepthook, before = end, threading.excepthook
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # in a shell's background jobs it is ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        threading.excepthook = before
        signal.signal(signal.SIGINT, handler)
