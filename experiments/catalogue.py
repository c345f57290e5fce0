r"""Separates, scores or prepares thousands of recordings on Apache Beam, file by file.

Examples:
  sccunet catalogue separate --model=RUN --output_dir=OUT ALBUM/ song.flac
  sccunet catalogue separate --model=RUN --output_dir=OUT --format=flac --list=FILES
  sccunet catalogue score --model=RUN --data_dir=DATA --output_dir=SCORES
  sccunet catalogue prepare --musdb_dir=MY_STEMS --data_dir=DATA --workers=4
  sccunet catalogue separate --model=RUN --output_dir=OUT --list=FILES -- \
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

import functools
import importlib
import sys
from collections.abc import Sequence

from absl import flags

from experiments import cli, separation_flags
from experiments.beam import pipeline, plans
from sccunet.config import ConfigError

_PLANS = {
    "separate": plans.plan_separation,
    "score": plans.plan_scoring,
    "prepare": plans.plan_preparation,
}


def main(action: str, beam_flags: Sequence[str], files: Sequence[str]) -> None:
    """Looks for what is left to do, has it done, and prints what became of it."""
    if action not in _PLANS:
        found = action or "none"
        raise ConfigError(f"ACTION: found {found}, expected separate, score or prepare to be first")
    if files and action != "separate":
        raise ConfigError(f"found the argument {files[0]!r}, expected only --flags")
    try:
        with pipeline.without_warnings():
            importlib.import_module("apache_beam")
    except ModuleNotFoundError as error:
        raise ConfigError(
            'apache-beam: not installed, expected pip install -e ".[beam]"'
        ) from error
    outcome = pipeline.run(_PLANS[action](files), beam_flags, flags.FLAGS.workers)
    if action == "score":
        plans.summarise_scores()
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
        separation_flags.define_flags()
        flags.adopt_module_key_flags(separation_flags)


def _take_arguments(argv: list[str]) -> tuple[str, list[str]]:
    """Takes the action, and what stands behind `--`, out of a command line."""
    end = argv.index("--") if "--" in argv else len(argv)
    beam_flags = argv[end + 1 :]
    del argv[end:]
    action = argv.pop(1) if len(argv) > 1 and not argv[1].startswith("-") else ""
    return action, beam_flags


if __name__ == "__main__":
    _ACTION, _BEAM_FLAGS = _take_arguments(sys.argv)
    _define_flags(_ACTION)
    if _ACTION not in _PLANS:  # its flags are unknown, too
        sys.argv[1:] = {"-h", "--help", "--helpfull"} & {*sys.argv}
    cli.run(functools.partial(main, _ACTION, _BEAM_FLAGS), takes_files=True)
