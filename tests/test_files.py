"""Files and folders appear whole or not at all, also with several writers."""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from data_pipeline.errors import AudioError
from sccunet.config import UserError
from sccunet.files import (
    TakenError,
    file_written_whole,
    folder_written_whole,
    lock_folder,
    name_that_fits,
    read_json,
    write_whole,
)


def _left(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_text_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_whole(path, "one")
    write_whole(path, "two")
    assert path.read_text() == "two"
    with pytest.raises(TypeError):
        write_whole(path, None)
    assert _left(tmp_path) == ["a", "a/b.json"]


def test_unfinished_file_has_no_ending_that_others_look_for(tmp_path):
    path = tmp_path / ("b" * 200 + ".x" * 20 + ".json")
    with file_written_whole(path) as part:
        part.write_text("{")
        assert not list(tmp_path.glob("*.json"))
    assert list(tmp_path.glob("*.json")) == [path]


def test_a_single_writer_replaces_leftovers_of_a_killed_one(tmp_path):
    path = tmp_path / "last.weights.h5"
    (tmp_path / ".last.weights.h5").write_text("half")
    with file_written_whole(path, alone=True) as part:
        assert part.read_text() == "half"
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert _left(tmp_path) == ["last.weights.h5"]


def test_folder_is_there_at_the_end(tmp_path):
    folder = tmp_path / "above" / "song"
    with folder_written_whole(folder) as partial:
        (partial / "a.wav").write_text("a")
        assert not folder.exists()
    assert _left(tmp_path) == ["above", "above/song", "above/song/a.wav"]
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777


def test_a_failure_leaves_nothing_and_names_the_folder(tmp_path):
    folder = tmp_path / "song"

    def fail(error):
        with folder_written_whole(folder) as partial:
            (partial / "a.wav").write_text("a")
            raise error(partial)

    with pytest.raises(AudioError) as caught:
        fail(lambda partial: AudioError(f"{partial}/b.wav: no luck"))
    assert str(caught.value) == f"{folder}/b.wav: no luck"
    with pytest.raises(UserError) as caught:
        fail(lambda _: OSError(28, "No space left on device"))
    assert str(caught.value) == f"{folder}: cannot be written (No space left on device)"
    assert _left(tmp_path) == []


def test_two_writers_of_the_same_folder_do_not_disturb_each_other(tmp_path):
    folder = tmp_path / "song"
    with folder_written_whole(folder) as slow:
        (slow / "slow.wav").write_text("slow")
        with folder_written_whole(folder) as quick:
            (quick / "quick.wav").write_text("quick")
        assert (slow / "slow.wav").read_text() == "slow"
    assert _left(tmp_path) == ["song", "song/quick.wav", "song/slow.wav"]


def test_a_new_folder_does_not_replace_one_that_appeared(tmp_path):
    folder = tmp_path / "1"

    def write():
        with folder_written_whole(folder, new=True) as partial:
            (partial / "ours").write_text("")
            folder.mkdir()
            (folder / "theirs").write_text("")

    with pytest.raises(TakenError, match=r"/1: cannot be written \("):
        write()
    assert _left(tmp_path) == ["1", "1/theirs"]


def test_a_hidden_folder_that_another_process_removes_is_not_used(tmp_path, monkeypatch):
    """Another process locks and removes it after it is made and before it is locked."""
    made, mkdtemp = [], tempfile.mkdtemp

    def stolen(*arguments):
        made.append(mkdtemp(*arguments))
        if len(made) == 1:
            locks.enter_context(lock_folder(made[0]))
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", stolen)
    with contextlib.ExitStack() as locks, folder_written_whole(tmp_path / "song") as partial:
        shutil.rmtree(made[0])
        assert partial.parent == Path(made[1])
        (partial / "a.wav").write_text("a")
    assert len(made) == 2
    assert _left(tmp_path) == ["song", "song/a.wav"]


def test_only_leftovers_of_killed_processes_are_removed(tmp_path):
    for name in (".song.dead.part", ".song.alive.part", ".other.dead.part", ".song.part", "song2"):
        (tmp_path / name / "stems").mkdir(parents=True)
    with lock_folder(tmp_path / ".song.alive.part") as ours:
        assert ours
        with folder_written_whole(tmp_path / "song"):
            pass
    names = [".other.dead.part", ".song.alive.part", ".song.part", "song", "song2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.fixture
def on_disk(monkeypatch):
    """Lists in order what is flushed, as a path, and what is renamed, as a pair of paths."""
    done, fsync = [], os.fsync

    def recorded_fsync(descriptor):
        done.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def recorded(rename):
        def record(old, new):
            done.append((str(old), str(new)))
            rename(old, new)

        return record

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded(os.rename))
    monkeypatch.setattr(os, "replace", recorded(os.replace))
    return done


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds names of open files in /proc")
def test_content_is_flushed_before_it_gets_its_name_and_names_after_that(tmp_path, on_disk):
    write_whole(tmp_path / "new" / "a.json", "{}")
    new, part, renamed, names = on_disk
    assert (new, names) == (str(tmp_path), str(tmp_path / "new"))
    assert renamed == (part, str(tmp_path / "new" / "a.json"))

    song = tmp_path / "song"
    for _ in range(2):  # a new folder, then an existing one
        on_disk.clear()
        with folder_written_whole(song) as partial:
            (partial / "a.wav").write_text("a")
            content = {str(partial), str(partial / "a.wav")}
        *flushed, renamed, names = on_disk
        assert set(flushed) == content
        if renamed == (str(partial), str(song)):
            assert names == str(tmp_path)
        else:
            assert renamed == (str(partial / "a.wav"), str(song / "a.wav"))
            assert names == str(song)


def test_a_folder_need_not_be_flushed_but_a_file_must(tmp_path, monkeypatch):
    def fsync(descriptor):
        if refuses_all or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    refuses_all = False
    write_whole(tmp_path / "a.json", "old")
    refuses_all = True
    with pytest.raises(OSError, match="Invalid argument"):
        write_whole(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old"
    assert _left(tmp_path) == ["a.json"]


def test_json_that_is_empty_damaged_or_lacks_a_field_gives_one_line(tmp_path):
    path = tmp_path / "a.json"
    for content, found in (
        (b"", "an empty file"),
        (b'{"a": [1', "no JSON (Expecting ',' delimiter: line 1 column 9 (char 8))"),
        (b'{"a": "\xff"}', "no JSON ('utf-8' codec can't decode byte 0xff in position 7: invalid"),
        (bytes(20), "no JSON ("),
        (b"{}", "no 'a' in it"),
        (b"[1]", "no 'a' in it"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_json(path, "a")
        assert str(caught.value).startswith(f"{path}: found {found}")
        assert str(caught.value).endswith(", expected the JSON that was written there")
        assert "\n" not in str(caught.value)
    write_whole(path, '{"a": "\udce9"}')  # of a name that is not UTF-8
    assert path.read_bytes() == b'{"a": "\xe9"}'
    path.write_text('{"a": 1}')
    assert read_json(path, "a") == {"a": 1}


def test_names_fit_with_their_ending():
    for name, length in (
        ("a" * 250, 250),
        ("a" * 251, 251),
        ("é" * 127 + "a", 255),
        ("語" * 84, 252),
    ):
        fits = name_that_fits(name, ".json")
        assert fits.endswith(".json")
        assert len(os.fsencode(name)) == length
        assert len(os.fsencode(fits)) <= 255
        assert (fits == f"{name}.json") == (length <= 250)
    others = {name_that_fits("a" * 250 + end, ".json") for end in ("b", "c", "d", "\udce9")}
    assert len(others) == 4


def test_the_longest_names_can_be_written(tmp_path):
    for name in ("a" * 255, "é" * 127 + "a", "😀" * 63 + "abc"):
        assert len(os.fsencode(name)) == 255
        with folder_written_whole(tmp_path / "folders" / name) as partial:
            (partial / "a.wav").write_text("a")
        write_whole(tmp_path / name, "a")
        assert (tmp_path / "folders" / name / "a.wav").read_text() == (tmp_path / name).read_text()
