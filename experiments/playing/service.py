"""Runs the player's server until it is interrupted."""

import contextlib
import os
import secrets
import signal
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvicorn

from experiments.playing import models, server
from experiments.playing.security import OnlyOwnPage
from experiments.playing.songs import Songs
from sccunet.checks import UserError


@contextlib.contextmanager
def prepared(
    offered: Sequence[Path], given: Path | None, max_bytes: int, host: str, port: int
) -> Iterator[tuple[uvicorn.Server, socket.socket, str]]:
    """Context manager that yields a server, its listening socket, and the page's address.

    The songs and their temporary folder go at the end.

    Args:
      offered, given, max_bytes: as for `server.make_app`; `offered` are folders of models.
      host, port: where it listens; port 0 is a free one.

    Raises:
      UserError: if it cannot listen there.
    """
    separators = models.Separators(offered)
    with (
        _listening(host, port) as listener,
        tempfile.TemporaryDirectory(prefix="sccunet-player-") as folder,
        contextlib.closing(Songs(Path(folder), separators)) as songs,
    ):
        port, token = listener.getsockname()[1], secrets.token_urlsafe(16)
        app = server.make_app(
            songs, separators, given, max_bytes, lambda: running.should_exit or running.force_exit
        )
        config = uvicorn.Config(
            OnlyOwnPage(app, token, host, port),
            http="h11",
            ws="none",
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        running = uvicorn.Server(config)
        name = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        name = f"[{name}]" if ":" in name else name
        yield running, listener, f"http://{name}:{port}/{token}/"


def serve(
    offered: Sequence[Path],
    given: Path | None,
    max_bytes: int,
    host: str,
    port: int,
    browser: bool,
) -> None:
    """Prints the address and serves until Ctrl-C or SIGTERM.

    Args:
      offered, given, max_bytes, host, port: as for `prepared`.
      browser: whether to open the page.
    """
    # They would end the process at once, and leave the temporary folder.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),  # the usual end
        prepared(offered, given, max_bytes, host, port) as (running, listener, address),
    ):
        print(f"player: {address}\nCtrl-C ends it", flush=True)
        if browser and _has_screen():
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(address)
        running.run([listener])


def _has_screen() -> bool:
    """Whether a browser would get a window, rather than this terminal."""
    unix = sys.platform not in ("win32", "darwin")
    return not unix or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(f"--host, --port: cannot listen at {host}:{port} ({error})") from error
    with listener:
        yield listener
