"""Reads the list of everything that the free training set is made of: `sources.json`."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sccunet.config import ConfigError
from sccunet.files import read_json

LISTING = Path(__file__).with_name("sources.json")

# By their SPDX names. Whoever shares what is made from a work under one of the second kind has to
# keep its licence.
PERMISSIVE = ("BSD-3-Clause", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0", "MIT")
SHARE_ALIKE = (
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "GFDL-1.3-no-invariants-only",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
)

# Role of a work -> data directory of its tracks, in the order in which they are built: singing
# takes longest. config.data_weights sets their shares.
DIRECTORIES = {
    "stems": "songs",
    "vocals": "voices",
    "accompaniment": "music",
    "speech": "sung",
}
SPLITS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where files come from.

    Attributes:
      name: its folder among the sources.
      git: URL of a Git repository, and `commit` in it; or
      package: a Debian package, and the `version` whose files were listed; or
      about: how to get the folder, if no program can.
      licence_files: path in the folder -> SHA-256 of what states the licences.
    """

    name: str
    git: str = ""
    commit: str = ""
    package: str = ""
    version: str = ""
    about: str = ""
    licence_files: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Work:
    """A song, a piece of music, a voice or a speaker.

    Attributes:
      name: unique; begins the names of its tracks.
      source: name of its `Source`.
      role: "stems" (a song), "accompaniment" (music without a voice), "vocals" (a voice alone) or
        "speech" (a speaker, to be sung).
      split: "train", "valid" or "test".
      licence: SPDX names, joined by " AND ".
      author: as the source states it.
      files: stem -> path in the source -> SHA-256. A path may lead into a ZIP file. The files of a
        stem are summed in songs, and joined otherwise.
      gain: factor for all stems.
      takes: number of songs that a speaker sings.
      over: name of the music to which a speaker of the validation split sings.
    """

    name: str
    source: str
    role: str
    split: str
    licence: str
    author: str
    files: Mapping[str, Mapping[str, str]]
    gain: float = 1.0
    takes: int = 1
    over: str = ""

    @property
    def licences(self) -> list[str]:
        """The SPDX names of its licences."""
        return self.licence.split(" AND ")

    @property
    def is_share_alike(self) -> bool:
        """Whether one of its licences asks for the same licence on what is made from it."""
        return any(licence in SHARE_ALIKE for licence in self.licences)


def read_listing(path: Path = LISTING) -> tuple[dict[str, Source], dict[str, Work]]:
    """Returns all sources and all works by their names.

    Raises:
      ConfigError: if a work has no author, no free licence, no files or no SHA-256 for one, or if
        names do not fit.
    """
    found = read_json(path, "sources", "works")
    sources = {
        name: _made(Source, path, {"name": name, **of}) for name, of in found["sources"].items()
    }
    listed = [_made(Work, path, of) for of in found["works"]]
    works = {work.name: work for work in listed}
    for source in sources.values():
        _check(source.licence_files, path, source.name, "licence_files", source.licence_files)
        _check_checksums(path, source.name, source.licence_files)
    for work in listed:
        _check_work(path, work, sources, works)
    if len(works) < len(listed):
        names = [work.name for work in listed]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{path}: found {twice!r} twice, expected unique names")
    return sources, works


def _made(kind: type, path: Path, values: Mapping[str, object]):
    try:
        return kind(**values)
    except TypeError as error:  # a field that is missing or unknown
        raise ConfigError(f"{path}: {values.get('name')}: {error}") from error


def _check_work(
    path: Path, work: Work, sources: Mapping[str, Source], works: Mapping[str, Work]
) -> None:
    free = (*PERMISSIVE, *SHARE_ALIKE)
    for field, ok in {
        "source": work.source in sources,
        "role": work.role in DIRECTORIES,
        "split": work.split in SPLITS,
        "licence": bool(work.licence) and set(work.licences) <= set(free),
        "author": bool(work.author.strip()),
        "files": bool(work.files) and all(work.files.values()),
    }.items():
        _check(ok, path, work.name, field, getattr(work, field))
    stems = {"stems": 2, "accompaniment": 1, "vocals": 1, "speech": 1}[work.role]
    _check(len(work.files) >= stems, path, work.name, "files", list(work.files))
    sung = work.role == "speech" and work.split != "train"
    below = works.get(work.over)
    fits = below is not None and below.role == "accompaniment" and below.split == work.split
    _check(fits if sung else not work.over, path, work.name, "over", work.over)
    for files in work.files.values():
        _check_checksums(path, work.name, files)


def _check_checksums(path: Path, name: str, files: Mapping[str, str]) -> None:
    for file, checksum in files.items():
        whole = isinstance(checksum, str) and re.fullmatch("[0-9a-f]{64}", checksum)
        _check(whole, path, name, f"SHA-256 of {file}", checksum)


def _check(ok: object, path: Path, name: str, field: str, found: object) -> None:
    if not ok:
        raise ConfigError(f"{path}: {name}: found {found!r}, expected a valid {field}")


def credits_table(sources: Mapping[str, Source], works: Sequence[Work]) -> str:
    """Returns a Markdown table of licences and authors: a row for those of a source."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for work in works:
        source = sources[work.source]
        where = source.git or (f"Debian's {source.package}" if source.package else source.name)
        licence = work.licence + (" (share-alike)" if work.is_share_alike else "")
        rows.setdefault((where, licence, work.author), []).append(work.name)
    lines = ["| source | licence | author | works |", "|---|---|---|---|"]
    for key, names in sorted(rows.items()):
        lines.append(f"| {' | '.join(key)} | {', '.join(names)} |")
    return "\n".join(lines) + "\n"
