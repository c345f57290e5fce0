"""Shared by all programs: flags, and one clear line for a user's mistake, not a traceback."""

import errno
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging

from experiments import arguments, missing, streams
from sccunet import keras_settings
from sccunet.config import ConfigError, UserError
from sccunet.reconstruction import MASKS, Reconstruction

# Fields of a config that define stems where there is no model; oracles need the frames.
FIELDS_OF_STEMS = (
    "model.stems",
    "model.sample_rate",
    "model.frame_length",
    "model.hop_length",
    "sources",
)


def run(
    main: Callable[[Sequence[str]], None],
    takes_files: bool = False,
    any_backend: bool = False,
    needs: Sequence[str] = (),
) -> None:
    """Runs `main` under absl, with the arguments that are not flags.

    A user's mistake, or a package that is not installed, prints one line to standard error and
    exits with code 1. Closed streams and readers that are gone do not stop the program.

    Args:
      main: the program.
      takes_files: whether it accepts arguments besides its flags.
      any_backend: whether KERAS_BACKEND selects Keras's backend; otherwise it is TensorFlow.
      needs: modules without which the program can only show its help, in `missing.EXTRAS`.
    """
    streams.protect()
    _use_this_installation()
    keras_settings.ignore(any_backend)
    # TensorFlow's log lines about the machine would bury the one line that matters.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def guarded(argv):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # absl's own default is INFO
        try:
            if argv[1:] and not takes_files:
                raise ConfigError(f"found the argument {argv[1]!r}, expected only --flags")
            main(argv[1:])
            if lost := streams.lost_output():
                raise UserError(f"standard output: cannot be written ({lost.strerror})")
        except UserError as error:
            _fail(str(error))
        except ModuleNotFoundError as error:
            _fail(missing.reason(error))
        except KeyboardInterrupt:
            report("interrupted")
            sys.exit(128 + signal.SIGINT)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                _fail(f"{error.filename or 'a file'}: cannot be written ({error.strerror})")
            if error.filename is None:
                raise
            _fail(f"{error.filename}: cannot be read or written ({error.strerror})")

    app.run(guarded, flags_parser=lambda argv: _parse(argv, needs))


def _use_this_installation() -> None:
    """Makes Python processes that this one starts import this installation, in whatever folder.

    `python -m` looks in the working directory first, where another `experiments` may be.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    root = str(Path(__file__).parents[1])
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        others = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{root}{os.pathsep}{others}" if others else root


def _parse(argv: Sequence[str], needs: Sequence[str]) -> list[str]:
    try:
        return arguments.parse(argv, needs=needs)
    except UserError as error:
        _fail(str(error))


def _fail(reason: str) -> NoReturn:
    report(reason)
    sys.exit(1)


def report(reason: str) -> None:
    """Prints a mistake as one line; for programs that continue after it."""
    logging.flush()
    print(f"error: {reason}", file=sys.stderr, flush=True)


def report_failure(name: str, error: Exception) -> None:
    """Prints why one of several files or tracks failed, as one line; --verbosity=1 says where."""
    logging.debug("%s", name, exc_info=error)
    report(failure(name, error))


def failure(name: str, error: Exception) -> str:
    """Returns why a file or track failed, in one line, whatever the exception is."""
    if isinstance(error, UserError):
        return one_line(str(error))
    what = next(iter(str(error).splitlines()), "")  # TensorFlow's errors have pages
    return one_line(": ".join(filter(None, (name, type(error).__name__, what))))


def warn(warning: str) -> None:
    """Prints a warning as one line."""
    logging.flush()
    print(f"warning: {one_line(warning)}", file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Returns a text without line breaks, which names of files can contain."""
    return text.replace("\n", "\\n")


def config_overrides() -> list[str]:
    """Returns the flags that override fields of the --config file, in the form they are given."""
    return arguments.override_flags(flags.FLAGS["config"].override_values)


def run_program(program: str, *arguments: str) -> int:
    """Prints and runs the command of another program; returns its exit code.

    On Ctrl-C, which that program receives too, this one ends after it: it may have to save. The
    second Ctrl-C ends both at once.
    """
    shown = " ".join(f'"{a}"' if " " in a else a for a in arguments)
    print(f"\n$ sccunet {program} {shown}", flush=True)
    with subprocess.Popen([sys.executable, "-m", f"experiments.{program}", *arguments]) as running:
        try:
            code = running.wait()
        except KeyboardInterrupt:
            try:
                running.wait()
            except KeyboardInterrupt:
                running.kill()
            raise
    if code < 0:  # it could not report this itself
        report(f"{program}: killed by signal {-code}, perhaps out of memory")
    return code


def refuse_idle(names: Iterable[str], idle: Any, beside: str) -> None:
    """Refuses flags that would have no effect, so that nobody believes they had.

    Args:
      names: flags.
      idle: whether they have no effect, if they are given.
      beside: why, such as "without --mask=soft".

    Raises:
      ConfigError: if one of the flags is given.
    """
    for name in names:
        if idle and flags.FLAGS[name].present:
            raise ConfigError(f"--{name}: given, expected none {beside}")


def refuse_idle_overrides(used: Sequence[str]) -> None:
    """Refuses --config.FIELD for fields that the program does not use.

    Args:
      used: fields, or the starts of their names.

    Raises:
      ConfigError: if another field is given.
    """
    for field in flags.FLAGS["config"].override_values if flags.FLAGS.config else ():
        if not field.startswith(tuple(used)):
            raise ConfigError(
                f"--config.{field}: given, expected only fields that this program uses:"
                f" {', '.join(used)}"
            )


def define_config(purpose: str, default: str | None = None) -> flags.FlagHolder:
    """Defines the flag config, and with it a flag for each field of the config."""
    holder = arguments.define_config(purpose, default)
    _show_in_help(holder)
    return holder


def define_data_dirs() -> flags.FlagHolder:
    """Defines the flag data_dir for one or several; its value is for `names.listed_directories`."""
    holder = flags.DEFINE_multi_string(
        "data_dir",
        None,
        "Tracks in the MUSDB18-HQ layout: train/<track>/<stem>.wav. Several directories with commas"
        " between them, whose shares --config.data_weights can set.",
        required=True,
    )
    _show_in_help(holder)
    return holder


def define_tracks(purpose: str) -> flags.FlagHolder:
    """Defines the flag tracks; its value is for `names` of `data_pipeline.tracks.find_tracks`."""
    holder = flags.DEFINE_multi_string(
        "tracks",
        [],
        f"{purpose} Names, with commas between them, or a file with a name on each line.",
    )
    _show_in_help(holder)
    return holder


class _ListFlag(flags.MultiFlag):
    """A flag for a list with commas between its entries; given again, it adds to the list."""

    def _parse(self, arguments):
        lists = super()._parse(arguments)
        return lists and [entry for entries in lists for entry in entries]


def define_list(name: str, default: Sequence[str], purpose: str) -> flags.FlagHolder:
    """Defines a flag for a list of entries that contain no commas."""
    holder = flags.DEFINE_flag(
        _ListFlag(flags.ListParser(), flags.ArgumentSerializer(), name, default, purpose)
    )
    _show_in_help(holder)
    return holder


def _show_in_help(holder: flags.FlagHolder) -> None:
    """Shows a flag in the program's --help, which has only those of the program's own module."""
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[holder.name])


def define_reconstruction() -> tuple[flags.FlagHolder, flags.FlagHolder, flags.FlagHolder]:
    """Defines flags for the fields of `sccunet.Reconstruction`: mask, exponent, iterations."""
    holders = (
        flags.DEFINE_enum(
            "mask",
            "none",
            MASKS,
            "How estimates become stems. none: the model's magnitudes with the mixture's phase, as"
            " in the paper. soft: each stem's share of the mixture's spectrogram. wiener:"
            " multichannel Wiener filter.",
        ),
        flags.DEFINE_float(
            "mask_exponent",
            2.0,
            "Exponent for --mask=soft: 1 gives the ratio mask, 2 the single-channel Wiener gain.",
        ),
        flags.DEFINE_integer(
            "wiener_iterations", 1, "EM iterations for --mask=wiener.", lower_bound=1
        ),
    )
    for holder in holders:
        _show_in_help(holder)
    return holders


def reconstruction_of_flags() -> Reconstruction:
    """Returns the reconstruction that the flags of `define_reconstruction` choose.

    Raises:
      UserError: for values that `Reconstruction` refuses, those of another mask, or a mask whose
        package is not installed.
    """
    given = flags.FLAGS
    refuse_idle(["mask_exponent"], given.mask != "soft", "without --mask=soft")
    refuse_idle(["wiener_iterations"], given.mask != "wiener", "without --mask=wiener")
    if given.mask == "wiener":
        missing.check("norbert", flag="--mask=wiener")
    return Reconstruction(given.mask, given.mask_exponent, given.wiener_iterations)


def start_worker() -> None:
    """Prepares this worker process: it ends with its parent, even if the parent is killed."""
    import multiprocessing
    import threading

    streams.protect()

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
