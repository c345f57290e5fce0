"""Builds the free training set in a folder, track by track."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipeline.audio_writer import write_wav
from data_pipeline.errors import AudioError
from experiments import cli, workers
from experiments.free_music_set import sources as places
from experiments.free_music_set.checksums import CHECKSUMS, Record, is_close, record_of
from experiments.free_music_set.listing import LISTING, Source, Work, credits_table, read_listing
from experiments.free_music_set.speech import RATE
from experiments.free_music_set.tracks import Track, planned, stems_of
from sccunet.checks import counted
from sccunet.config import UserError
from sccunet.files import TakenError, folder_written_whole, read_json, write_whole

OWN_CHECKSUMS, CREDITS = "checksums.json", "credits.md"


def build(
    data_dir: Path,
    sources_dir: Path,
    listing: Path = LISTING,
    checksums: Path = CHECKSUMS,
    jobs: int = 0,
) -> None:
    """Builds all tracks that are missing, and compares the checksums of all.

    Args:
      data_dir: folder of the set.
      sources_dir: a folder for each source; missing ones are downloaded.
      listing: what to build.
      checksums: those of an earlier build.
      jobs: number of worker processes; 0: one per core, at most 8.

    Raises:
      UserError: one line for each source that cannot be had, track that cannot be built or file
        that is not the recorded one. Nothing is built without all sources; the other tracks are.
    """
    from data_pipeline.tracks import first_few

    sources, works = read_listing(listing)
    folders = places.folders(sources, sources_dir)
    _get(sources, works, folders)
    tracks = planned(works)
    built, bad = _make(tracks, works, folders, data_dir, jobs)
    write_whole(data_dir / CREDITS, credits_table(sources, list(works.values())))
    print(f"built {counted(built, 'track')}, kept {len(tracks) - built - len(bad)}: {data_dir}")
    if bad:
        raise AudioError(first_few(bad))
    print(_compared(tracks, data_dir, read_json(checksums)))


def _get(
    sources: Mapping[str, Source], works: Mapping[str, Work], folders: Mapping[str, Path]
) -> None:
    """Downloads what is missing, and checks the licences."""
    missing = []
    for name, source in sources.items():
        try:
            places.get(source, folders[name], places.paths_of(source, list(works.values())))
            places.check_licences(source, folders[name])
        except UserError as error:
            missing.append(str(error))
    if missing:
        raise UserError("\n".join(missing))


def _make(
    tracks: Sequence[Track],
    works: Mapping[str, Work],
    folders: Mapping[str, Path],
    data_dir: Path,
    jobs: int,
) -> tuple[int, list[str]]:
    """Makes the missing tracks; returns how many, and why others could not be made."""
    calls = {
        str(track.path): (track, _sung_over(track, works), folders, data_dir)
        for track in tracks
        if not (data_dir / track.path).exists()
    }
    built, failed = 0, {}
    for name, future in workers.finished(_make_track, calls, jobs, str(data_dir)):
        try:
            built += future.result()
        except Exception as error:
            failed[name] = cli.failure(name, error)
    return built, [failed[name] for name in calls if name in failed]


def _sung_over(track: Track, works: Mapping[str, Work]) -> dict[str, Work]:
    """Returns those of all works that a track is made of beside its own."""
    return {name: works[name] for name in [track.work.over] if name}


def _make_track(
    track: Track, works: Mapping[str, Work], folders: Mapping[str, Path], data_dir: Path
) -> bool:
    """Makes a track; returns whether no other run was faster."""
    folder = data_dir / track.path
    if folder.exists():
        return False
    stems = stems_of(track, works, folders)
    try:
        with folder_written_whole(folder, new=True) as part:
            for stem, samples in stems.items():
                write_wav(part / f"{stem}.wav", samples, RATE)
    except TakenError:
        if not folder.is_dir():
            raise
        return False
    return True


def _compared(tracks: Sequence[Track], data_dir: Path, recorded: Mapping[str, Record]) -> str:
    """Records the checksums of all files; returns how they compare with the recorded ones.

    Raises:
      AudioError: if a file is not close to the recorded one.
    """
    from tqdm import tqdm

    from data_pipeline.tracks import first_few

    own = data_dir / OWN_CHECKSUMS
    earlier = read_json(own) if own.exists() else {}
    found, same, close, other = {}, 0, 0, []
    for track in tqdm(tracks, unit="track", desc="checksums", disable=None):
        for file in sorted((data_dir / track.path).glob("*.wav")):
            name = file.relative_to(data_dir).as_posix()
            known = [record[name] for record in (recorded, earlier) if name in record]
            found[name] = record_of(file, known)
            if name not in recorded:
                continue
            if found[name]["sha256"] == recorded[name]["sha256"]:
                same += 1
            elif is_close(found[name], recorded[name]):
                close += 1
            else:
                other.append(
                    f"{file}: found {found[name]['samples']} samples at"
                    f" {found[name]['dbfs']} dBFS, expected {recorded[name]['samples']} at"
                    f" {recorded[name]['dbfs']} dBFS as recorded; remove {file.parent} to build it"
                    " again"
                )
    write_whole(own, json.dumps(found, indent=1, sort_keys=True) + "\n")
    if other:
        raise AudioError(first_few(other))
    text = f"{same} of {counted(len(found), 'file')} with the recorded checksum"
    if close:
        text += f", {close} with its length and level (rounded otherwise)"
    if new := len(found) - same - close:
        text += f", {new} not recorded yet"
    return f"{text}: {own}"
