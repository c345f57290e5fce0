"""Builds a training set of songs, music and voices that anybody may use, for any purpose.

The list experiments/free_music_set/sources.json names every file with its source, SHA-256, licence
and author. Share-alike licences (CC BY-SA, GPL, GFDL) are among them: FREE/credits.md says which.
Output:
  FREE/songs/{train,valid,test}/<song>/vocals.wav accompaniment.wav
  FREE/voices/train/<voice>/vocals.wav         singers alone
  FREE/sung/train/<speaker>_<n>/vocals.wav     recorded speech, sung by a vocoder
  FREE/music/train/<piece>/accompaniment.wav   music without singing

Examples:
  sccunet free_music --data_dir=FREE
  sccunet free_music --data_dir=FREE --sources=SOURCES --jobs=2

Sources come by git and apt-get where these are, and otherwise from SOURCES, a folder for each. The
program says what is missing and how to get it. It goes on where it was stopped. Files with another
checksum are refused.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from experiments.free_music_set.build import build


def main(_: Sequence[str]) -> None:
    """Builds the set."""
    data_dir = Path(_DATA_DIR.value)
    sources = Path(_SOURCES.value) if _SOURCES.value else data_dir / "sources"
    build(data_dir, sources, jobs=_JOBS.value)


if __name__ == "__main__":
    _DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder for the set.", required=True)
    _SOURCES = flags.DEFINE_string(
        "sources",
        None,
        "Folder of the sources, with a folder for each; missing ones are downloaded into it."
        " Default: sources in --data_dir.",
    )
    _JOBS = flags.DEFINE_integer(
        "jobs",
        0,
        "Number of tracks to make at the same time; 0: one per core, at most 8."
        " Each takes up to 1.6 GB of memory.",
        lower_bound=0,
    )
    cli.run(main, needs=("pyworld",))
