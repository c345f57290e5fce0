r"""Separates, scores or prepares thousands of recordings with Apache Beam, file by file.

Examples:
  sccunet catalogue separate --model=RUN --output_dir=OUT ALBUM/ song.flac
  sccunet catalogue separate --model=RUN --output_dir=OUT --format=flac --list=FILES
  sccunet catalogue score --model=RUN --data_dir=DATA --output_dir=SCORES
  sccunet catalogue prepare --input_dir=MY_STEMS --data_dir=DATA --workers=4
  sccunet catalogue separate --model=RUN --output_dir=OUT --list=FILES -- \
      --runner=DaskRunner --dask_client_address=tcp://HOST:8786

The program writes the same files as sccunet separate, evaluate and prepare, and has their flags:
see sccunet catalogue separate --help. A folder stands for the audio files in it. FILES has a path
on each line.

Finished files are kept: the same command continues a stopped or killed run. A bad file does not
stop the others. At the end, a table lists the counts of done, skipped and failed files, with the
reasons of failures; the exit code is 1 if a file failed. The decodable part of a damaged recording
is separated, but counts as failed as long as OUT/<name>/damaged.txt exists, which says what is
missing.

By default, the workers are processes on this machine; on a GPU, use one or two (--workers). Flags
after `--` are Apache Beam's, for workers on several machines, as a Dask cluster has. These need
this project, and a shared file system with inputs, model and outputs at the same paths.
"""

import contextlib
import functools
import sys
from collections.abc import Sequence

from absl import flags

from experiments import cli, evaluation_flags
from experiments.beam import pipeline, plans
from experiments.preparing import preparation_flags
from experiments.separating import separation_flags, stem_folders
from sccunet.config import ConfigError

_PLANS = {
    "separate": plans.plan_separation,
    "score": plans.plan_scoring,
    "prepare": plans.plan_preparation,
}


def main(action: str, beam_flags: Sequence[str], files: Sequence[str]) -> None:
    """Plans what is left to do, runs it, and prints the result."""
    if action not in _PLANS:
        found = action or "none"
        raise ConfigError(f"ACTION: found {found}, expected separate, score or prepare first")
    if files and action != "separate":
        raise ConfigError(f"found the argument {files[0]!r}, expected only --flags")
    outcome = pipeline.run(_PLANS[action](files), beam_flags, flags.FLAGS.workers)
    if action == "score":
        plans.summarise_scores()
    for warning in outcome.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(outcome.table())
    if outcome.failed:
        sys.exit(1)


def _define_flags(action: str) -> None:
    """Defines the flags of an action, named as in the program of that action."""
    flags.DEFINE_integer(
        "workers",
        None,
        "Number of processes on this machine. Default: one per core; for scores, as memory allows.",
        lower_bound=1,
    )
    if action == "score":
        evaluation_flags.define_flags()
        flags.adopt_module_key_flags(evaluation_flags)
    if action == "prepare":
        preparation_flags.define_flags()
        flags.adopt_module_key_flags(preparation_flags)
    if action == "separate":
        flags.DEFINE_string("list", None, "A file with the path of a recording on each line.")
        separation_flags.define_flags()
        stem_folders.define_recursive()
        for module in (separation_flags, stem_folders):
            flags.adopt_module_key_flags(module)


def _take_arguments(argv: list[str]) -> tuple[str, list[str]]:
    """Removes the action, and all arguments after `--`, from a command line; returns both."""
    end = argv.index("--") if "--" in argv else len(argv)
    beam_flags = argv[end + 1 :]
    del argv[end:]
    action = argv.pop(1) if len(argv) > 1 and not argv[1].startswith("-") else ""
    return action, beam_flags


def _refuse_beam_flags(argv: Sequence[str]) -> None:
    """Refuses flags of Apache Beam in front of `--`."""
    names = [argument[2:].partition("=")[0] for argument in argv[1:] if argument[:2] == "--"]
    unknown = [name for name in names if not {name, name.removeprefix("no")} & {*flags.FLAGS}]
    unknown = [name for name in unknown if not name.startswith("config.")]
    with contextlib.suppress(ModuleNotFoundError):
        for name in unknown:
            if name in pipeline.beam_flags():
                cli.report(f"--{name}: found before --, expected Beam's flags behind it")
                sys.exit(1)


if __name__ == "__main__":
    _ACTION, _BEAM_FLAGS = _take_arguments(sys.argv)
    _define_flags(_ACTION)
    if _ACTION in _PLANS:
        _refuse_beam_flags(sys.argv)
    else:  # its flags are unknown, too
        sys.argv[1:] = {"-h", "--help", "--helpfull"} & {*sys.argv}
    cli.run(
        functools.partial(main, _ACTION, _BEAM_FLAGS),
        takes_files=True,
        needs=["apache_beam", *["museval"] * (_ACTION == "score")],
    )
