"""What every program shares: one clear line for a user's mistake instead of a traceback."""

import sys
from collections.abc import Callable

from absl import app, logging

from data_pipeline.audio import AudioError
from sccunet.config import ConfigError


def run(main: Callable[[], None]) -> None:
    """Runs `main` under absl; a user's mistake prints one line and exits with 1."""

    def guarded(argv):
        if len(argv) > 1:
            raise app.UsageError(f"unexpected argument {argv[1]!r}; flags start with --")
        try:
            main()
        except (AudioError, ConfigError) as error:
            logging.flush()
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    app.run(guarded)
