"""Names as users list them: commas, spaces, and text files of other systems."""

import pytest
from absl import flags

from data_pipeline import names
from data_pipeline.errors import AudioError
from data_pipeline.names import lines_of, listed, split_names
from experiments import cli

_SONG = "Jokers, Jacks & Kings - Sea Of Leaves"
_KNOWN = {_SONG, "one", "two", " both ends ", "a", "a,b", "lat\udce9"}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["one,two"], ["one", "two"]),
        (["one", "two", "one"], ["one", "two"]),
        (["two, one"], ["two", "one"]),
        ([_SONG], [_SONG]),
        ([f"one,{_SONG},two"], ["one", _SONG, "two"]),
        ([" both ends ,one"], [" both ends ", "one"]),
        (["a,b,a"], ["a,b", "a"]),
        (["no, one"], ["no", "one"]),
        ([""], [""]),
        ([], []),
    ],
)
def test_names_with_commas_and_spaces(given, names):
    assert listed(given, _KNOWN) == names


@pytest.mark.parametrize(
    "content",
    [
        f"one\n{_SONG}\n\n both ends \nlat\udce9".encode(errors="surrogateescape"),
        b"\xef\xbb\xbf"
        + f"one\r\n{_SONG}\n both ends \r\nlat\udce9\r\n".encode(errors="surrogateescape"),
    ],
)
def test_a_file_has_a_name_on_each_line(tmp_path, content):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    names = ["one", _SONG, " both ends ", "lat\udce9"]
    assert lines_of(path) == names
    assert listed(["two", str(path)], _KNOWN) == ["two", *names]
    assert listed([str(path)], {str(path)}) == [str(path)]  # a track, not a file


def test_files_of_windows_and_bad_files(tmp_path):
    path = tmp_path / "list.txt"
    for encoding in ("utf-16-le", "utf-16-be"):
        path.write_bytes("\ufeffgröße\r\nzwei".encode(encoding))
        assert lines_of(path) == ["größe", "zwei"]
    path.write_bytes(b"\n\n")
    with pytest.raises(AudioError, match=rf"^{path}: found no names, expected one on each line$"):
        lines_of(path)
    with pytest.raises(AudioError, match=rf"^{tmp_path}: cannot be read \(Is a directory\)"):
        lines_of(tmp_path)


def test_known_names_are_split_longest_first():
    assert split_names("kick, snare,rest=a+b", {"kick, snare", "kick"}) == [
        "kick, snare",
        "rest=a+b",
    ]


def test_flags_given_again_add_to_the_list():
    values = flags.FlagValues()
    flag = cli._ListFlag(flags.ListParser(), flags.ArgumentSerializer(), "seeds", ["0", "1"], "")
    values["seeds"] = flag
    values(["program"])
    assert values.seeds == ["0", "1"]
    values(["program", "--seeds=5, 6", "--seeds", "7"])
    assert values.seeds == ["5", "6", "7"]


def test_directories_with_commas_between_them_or_in_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b, c").mkdir()
    assert names.listed_directories(["a,b, c", "d"]) == ["a", "b, c", "d"]
    assert names.directories("a,b") == ("a,b",)
    assert names.directories([tmp_path, "b"]) == (tmp_path, "b")
    assert names.full_paths(["a"]) == str(tmp_path / "a")
    assert names.full_paths(["a", "b"]) == [str(tmp_path / "a"), str(tmp_path / "b")]
