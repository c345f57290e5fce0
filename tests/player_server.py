"""A stem player in this process, with what asks it as a browser or a stranger would."""

import contextlib
import dataclasses
import http.client
import json
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path
from unittest import mock

import pytest

pytest.importorskip("starlette", reason="needs starlette: pip install 'sccunet[player]'")
pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'sccunet[player]'")

from experiments.playing import service, songs
from sccunet import runs

HOST = "127.0.0.1"


@dataclasses.dataclass
class Player:
    """A running player.

    Attributes:
      address: of its page.
      folder: the parent of its temporary folder.
    """

    address: str
    folder: Path

    def ask(self, path, method="GET", body=None, root=None, **headers):
        """Returns status and content of an answer.

        Args:
          path: below `root`, by default that of the page.
          method, body: of the request; without a length if the body is an iterator.
          headers: with _ for -; they replace those of http.client.
        """
        parts = urllib.parse.urlsplit(self.address)
        with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=300)) as line:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            url = (parts.path if root is None else root) + path
            line.request(method, url, body, names, encode_chunked=hasattr(body, "__next__"))
            answer = line.getresponse()
            return answer.status, answer.read()

    def send(self, content, name="song.wav", **query):
        """Uploads a recording; returns the song's key."""
        query = urllib.parse.urlencode({"name": name, **query})
        status, answer = self.ask(f"songs?{query}", "POST", content)
        assert status == 201, answer
        return json.loads(answer)["key"]

    @contextlib.contextmanager
    def shown(self, key):
        """Context manager for as long as a page shows a song; yields an iterator of its states."""
        parts = urllib.parse.urlsplit(self.address)
        with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=300)) as line:
            line.request("GET", f"{parts.path}songs/{key}/events")
            answer = line.getresponse()
            lines = (text for text in iter(answer.readline, b"") if text.startswith(b"data: "))
            yield (json.loads(text[6:]) for text in lines)
            answer.close()

    def state(self, key, *wanted):
        """Returns a song's first state that is one of the wanted ones."""
        with self.shown(key) as states:
            return next(state for state in states if not wanted or state["state"] in wanted)

    def files(self):
        """Returns all that is in its temporary folder."""
        return [path for path in self.folder.glob("sccunet-player-*/**/*") if path.is_file()]


@contextlib.contextmanager
def running(folder, given=None, max_bytes=1 << 24, offered=None):
    """Context manager that yields a `Player` whose temporary folder is in `folder`."""
    offered = [runs.shipped_model()] if offered is None else offered
    with (
        mock.patch.object(tempfile, "tempdir", str(folder)),
        mock.patch.object(songs, "LEFT_UNFINISHED", 600.0),  # the machine may be slow
        service.prepared(offered, given, max_bytes, HOST, 0) as (server, listener, address),
    ):
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Player(address, Path(folder))
        finally:
            server.should_exit = True
            thread.join()


def wait_for(condition, what):
    """Waits until a condition holds."""
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)
