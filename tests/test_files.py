"""Files and folders appear whole or not at all, also with several writers."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest

from data_pipeline.wav import AudioError
from sccunet.config import UserError
from sccunet.files import file_written_whole, folder_written_whole, lock_folder, write_whole


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

    with pytest.raises(UserError, match=r"/1: cannot be written \("):
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


def test_long_names_fit(tmp_path):
    folder = tmp_path / ("é" * 127)  # 254 bytes
    with folder_written_whole(folder) as partial:
        (partial / "a.wav").write_text("a")
    assert (folder / "a.wav").exists()
