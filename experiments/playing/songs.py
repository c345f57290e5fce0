"""The songs of the player: one is separated at a time, the others wait for their turn.

Each has a folder of its own in a temporary one, which goes with the song.
"""

import contextlib
import dataclasses
import itertools
import queue
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments import cli
from experiments.playing import sources
from experiments.playing.tracks import Tracks
from sccunet.checks import UserError

_MOST_SONGS = 16
LEFT_UNFINISHED = 10.0  # seconds after which a song without a page is removed
LEFT_FINISHED = 3600.0

WAITING, WORKING, DONE, FAILED = "waiting", "working", "done", "failed"


class TooManySongsError(UserError):
    """No further song can wait."""


@dataclasses.dataclass(eq=False)
class Song:
    """A song on its way from a file to tracks.

    Attributes:
      name: what the user calls it; never part of a path.
      folder: its own, for all of its files.
      path: the recording, or a folder of stems.
      choice: number of the model, and mask; None for a folder of stems.
      state: WAITING, WORKING, DONE or FAILED.
      message: what went wrong, or what is worth knowing, in a sentence.
      tracks: what can be played already.
      total: number of samples of each track, as far as it is known.
      pages: number of pages that show it.
      left: when the last page left, by `time.monotonic`.
      ended: set when it is removed.
    """

    name: str
    folder: Path
    path: Path
    choice: tuple[int, str] | None
    state: str = WAITING
    message: str = ""
    tracks: Tracks | None = None
    total: int | None = None
    began: float = 0.0
    pages: int = 0
    left: float = dataclasses.field(default_factory=time.monotonic)
    ended: threading.Event = dataclasses.field(default_factory=threading.Event)
    key: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(8))

    @contextlib.contextmanager
    def shown(self):
        """Context manager for as long as a page shows it."""
        self.pages += 1
        try:
            yield
        finally:
            self.pages -= 1
            self.left = time.monotonic()

    def seconds_left(self) -> float | None:
        """Returns the seconds until it is done, from the work so far; None if they are unknown."""
        done = self.tracks.frames if self.tracks else 0
        if self.state != WORKING or not done or not self.total:
            return None
        return max(self.total - done, 0) * (time.monotonic() - self.began) / done

    def run(self, separator_of: Callable[[int, str], Any]) -> None:
        """Fills the tracks, until it is done or ended.

        Raises:
          UserError: if the file cannot be used.
        """
        if self.choice is None:
            opened = sources.folder_of_stems(self.path)
        else:
            opened = sources.separated(self.path, separator_of(*self.choice))
        with opened as source:
            self._check_space(source)
            self.tracks = Tracks(self.folder, source.names, source.sample_rate, source.channels)
            self.total, self.message = source.frames, source.note
            self.began = time.monotonic()
            for blocks in source.blocks:
                if self.ended.is_set():
                    return
                self.tracks.append(blocks)
        self.tracks.finish()
        damage = [self._named(str(each.damage)) for each in source.mixtures if each.damage]
        self.message = " ".join(filter(None, [self.message, *(f"{one}." for one in damage)]))
        self.total, self.state = self.tracks.frames, DONE

    def fail(self, error: Exception) -> None:
        """Notes in a sentence why it cannot be played."""
        self.message = self._named(cli.failure(self.name, error)) + "."
        self.state = FAILED

    def _check_space(self, source: sources.Source) -> None:
        needed = 4 * (source.frames or 0) * source.channels * len(source.names)
        free = shutil.disk_usage(self.folder).free
        if needed > 0.9 * free:
            raise UserError(
                f"{self.name}: found {free / 1e9:.1f} GB free for its tracks, expected"
                f" {needed / 1e9:.1f} GB"
            )

    def _named(self, text: str) -> str:
        """Returns a message about the file with the user's name for it."""
        return text.replace(str(self.path), self.name)


class Songs:
    """All songs; a thread fills the tracks of one after the other.

    Args:
      folder: an existing, empty folder for their files.
      separator_of: number of a model, mask -> `sccunet.Separator`.
    """

    def __init__(self, folder: Path, separator_of: Callable[[int, str], Any]):
        self._folder, self._separator_of = folder, separator_of
        self._songs: dict[str, Song] = {}
        self._queue: queue.SimpleQueue[Song | None] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._work, name="separation")
        self._thread.start()

    def __getitem__(self, key: str) -> Song:
        return self._songs[key]

    def new(self, name: str, choice: tuple[int, str] | None, path: Path | None = None) -> Song:
        """Makes a song, which waits for its file and for `start`.

        Args:
          name, choice: as in `Song`.
          path: a file or folder that is there already; None: one in its own folder.

        Raises:
          TooManySongsError: if too many are there.
        """
        if len(self._songs) >= _MOST_SONGS:
            raise TooManySongsError(
                f"{name}: found {_MOST_SONGS} other songs here, expected fewer; try again later."
            )
        folder = self._folder / f"{next(self._numbers)}"
        folder.mkdir()
        song = Song(name, folder, path or folder / "recording", choice)
        self._songs[song.key] = song
        return song

    def again(self, song: Song, choice: tuple[int, str]) -> Song:
        """Returns a new song that separates the same file in another way; removes the old one."""
        own = song.path.parent == song.folder
        new = self.new(song.name, choice, None if own else song.path)
        if own:
            song.path.rename(new.path)
        self.remove(song)
        self.start(new)
        return new

    def start(self, song: Song) -> None:
        """Puts a song at the end of the queue."""
        self._queue.put(song)

    def remove(self, song: Song) -> None:
        """Ends the work on a song, and removes it with its files."""
        song.ended.set()
        self._songs.pop(song.key, None)
        shutil.rmtree(song.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Removes songs that no page shows any more."""
        now = time.monotonic()
        for song in list(self._songs.values()):
            patience = LEFT_FINISHED if song.state == DONE else LEFT_UNFINISHED
            if not song.pages and now - song.left > patience:
                self.remove(song)

    def state_of(self, song: Song) -> Mapping[str, Any]:
        """Returns what a page shows of a song."""
        tracks, left = song.tracks, song.seconds_left()
        frames = tracks.frames if tracks else 0
        total = max(song.total or 0, frames)
        before = itertools.takewhile(lambda other: other is not song, list(self._songs.values()))
        return {
            "key": song.key,
            "name": song.name,
            "state": song.state,
            "message": song.message,
            "ahead": sum(other.state in (WAITING, WORKING) for other in before),
            "choice": song.choice,
            "seconds_left": None if left is None else round(left),
            "tracks": tracks.names if tracks else [],
            "sample_rate": tracks.sample_rate if tracks else 0,
            "frames": frames,
            "total": total,
            "percent": 100 * frames // max(total, 1),
        }

    def close(self) -> None:
        """Ends all work and waits for the thread."""
        for song in list(self._songs.values()):
            self.remove(song)
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while song := self._queue.get():
            try:
                if not song.ended.is_set():
                    song.state = WORKING
                    song.run(self._separator_of)
            except Exception as error:  # may be a library's own, and others are waiting
                song.fail(error)
            if song.ended.is_set():  # it may have written meanwhile
                shutil.rmtree(song.folder, ignore_errors=True)
