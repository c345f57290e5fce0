"""Gets the sources of the free training set, and opens their files if their checksums are right."""

import contextlib
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from data_pipeline.errors import AudioError
from experiments.free_music_set.listing import Source, Work
from sccunet.config import UserError
from sccunet.files import TakenError, folder_written_whole


def get(source: Source, folder: Path, paths: Collection[str]) -> None:
    """Downloads a source unless its folder is there.

    Args:
      source: what to get.
      folder: where; appears whole or not at all.
      paths: the files that are used; no others are kept of a package.

    Raises:
      UserError: if it cannot be had here; it says how to get it.
    """
    if folder.is_dir():
        return
    if source.git:
        how = f"git clone {source.git}, commit {source.commit[:8]}"
        programs, put = ("git",), _clone
    elif source.package:
        how = f"unpack Debian's package {source.package} {source.version} (dpkg-deb -x)"
        programs, put = ("apt-get", "dpkg-deb"), _unpack
    else:
        raise UserError(f"{folder}: found no such folder, expected {source.about}")
    reason = next((f"no {name} here" for name in programs if not shutil.which(name)), "")
    try:
        if not reason:
            with folder_written_whole(folder, new=True) as part:
                put(source, part, paths)
            return
    except TakenError:
        if not folder.is_dir():
            raise
        return  # another run was faster
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"{error.cmd[0]} failed"
    raise UserError(f"{folder}: cannot be downloaded ({reason}): {how} there")


def _clone(source: Source, folder: Path, paths: Collection[str]) -> None:
    del paths  # a repository comes whole
    _run("git", "clone", "--quiet", source.git, folder)
    _run("git", "-C", folder, "checkout", "--quiet", source.commit)


def _unpack(source: Source, folder: Path, paths: Collection[str]) -> None:
    with tempfile.TemporaryDirectory() as parent:
        _run("apt-get", "download", source.package, cwd=parent)
        (package,) = Path(parent).glob("*.deb")
        unpack(package, folder, paths)


def unpack(package: Path, folder: Path, paths: Collection[str]) -> None:
    """Unpacks the named files of a Debian package.

    Raises:
      CalledProcessError: if dpkg-deb fails.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
        contextlib.suppress(tarfile.ReadError),  # dpkg-deb's failure is what counts
        tarfile.open(fileobj=process.stdout, mode="r|") as files,
    ):
        for file in files:
            path = file.name.removeprefix("./")
            if file.isfile() and path in paths:
                file.name = path
                files.extract(file, folder, set_attrs=False, filter="data")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def _run(*command: object, cwd: str | None = None) -> None:
    subprocess.run(list(map(str, command)), cwd=cwd, check=True, capture_output=True)


def paths_of(source: Source, works: Collection[Work]) -> set[str]:
    """Returns the paths of all files that are used of a source, in its folder.

    A path into a ZIP file counts as both, that and the ZIP file's own.
    """
    own = [work for work in works if work.source == source.name]
    paths = {path for work in own for files in work.files.values() for path in files}
    return {*source.licence_files, *paths, *(str(p) for path in paths for p in Path(path).parents)}


@contextlib.contextmanager
def opened(folder: Path, path: str, checksum: str) -> Iterator[Path]:
    """Context manager that yields a file of a source, which may be in a ZIP file.

    Raises:
      AudioError: if it is missing, or its SHA-256 is not `checksum`.
    """
    whole = folder / path
    if whole.is_file():
        _check(whole, whole, checksum)
        yield whole
        return
    archive = next((parent for parent in whole.parents if parent.is_file()), None)
    if archive is None:
        raise AudioError(f"{whole}: found no such file, expected the one in the list of sources")
    with tempfile.TemporaryDirectory() as parent, zipfile.ZipFile(archive) as files:
        inside = whole.relative_to(archive).as_posix()
        if inside not in files.namelist():
            raise AudioError(f"{archive}: found no {inside} in it, expected one")
        file = Path(files.extract(inside, parent))
        _check(file, whole, checksum)
        yield file


def check_licences(source: Source, folder: Path) -> None:
    """Checks that the licences are those that were read when the list was made.

    Raises:
      AudioError: if a file that states them is missing or has changed.
    """
    for path, checksum in source.licence_files.items():
        with opened(folder, path, checksum):
            pass


def _check(file: Path, name: Path, checksum: str) -> None:
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != checksum:
        raise AudioError(
            f"{name}: found the SHA-256 {found[:16]}..., expected {checksum[:16]}... as in the list"
            " of sources"
        )


def folders(sources: Mapping[str, Source], parent: Path) -> dict[str, Path]:
    """Returns the folder of each source."""
    return {name: parent / name for name in sources}
