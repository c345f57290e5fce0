"""What every program shares: one clear line for a user's mistake instead of a traceback."""

import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from data_pipeline.audio import AudioError
from sccunet.config import ConfigError


def run(main: Callable[[Sequence[str]], None], takes_files: bool = False) -> None:
    """Runs `main` under absl with the arguments that are no flags.

    A user's mistake prints one line on standard error and exits with 1.

    Args:
      main: the program.
      takes_files: whether it has arguments besides its flags.
    """
    # TensorFlow's own notes on the machine would bury the one line that matters.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def guarded(argv):
        try:
            if argv[1:] and not takes_files:
                raise ConfigError(f"found the argument {argv[1]!r}, expected only --flags")
            main(argv[1:])
        except (AudioError, ConfigError) as error:
            logging.flush()
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """absl's parser, with one line for a mistake in place of its usage text.

    A config file or an override that cannot be read raises many kinds of errors; each is the
    user's.
    """
    if any(argument in ("--help", "-help", "-h", "--helpfull") for argument in argv[1:]):
        return app.parse_flags_with_usage(argv)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        reason = str(error).splitlines()[0]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = f"--config or an override of it cannot be read: {type(error).__name__}: {error}"
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(1)


def end_with_parent() -> None:
    """For worker processes: ends this one with its parent, which may be killed without a word."""
    import multiprocessing
    import threading

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
