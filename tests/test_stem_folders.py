"""Where stems go: names of their folders, and the treatment of existing ones."""

import os

import pytest

from experiments.separating.stem_folders import plan, warn_of_left_out
from sccunet.config import ConfigError


def test_plan_of_files_and_folders(tmp_path):
    songs, out = tmp_path / "songs", tmp_path / "out"
    songs.mkdir()
    for name in ("b.wav", "a.mp3", ".hidden.wav", "notes.txt"):
        (songs / name).write_bytes(b"x")
    assert plan([str(songs), "-", "x/c.d.wav"], out, False, False).todo == {
        out / "a": str(songs / "a.mp3"),
        out / "b": str(songs / "b.wav"),
        out / "stdin": "-",
        out / "c.d": "x/c.d.wav",
    }
    with pytest.raises(ConfigError) as caught:
        plan([str(songs), "a.flac"], out, False, False)
    assert str(caught.value) == (
        f"a.flac: its stems would be written to {out}/a, as those of {songs}/a.mp3;"
        " expected names that differ before the extension, or --recursive for files in different"
        " folders"
    )
    (out / "b").mkdir(parents=True)
    with pytest.raises(ConfigError) as caught:
        plan([str(songs)], out, False, False)
    assert str(caught.value) == (
        f"{out}/b: found an existing folder, expected --overwrite, --skip_existing or a new folder"
    )
    assert list(plan([str(songs)], out, True, False).todo) == [out / "a", out / "b"]
    stems = ("vocals.wav", "drums.wav")
    left = (out, False, True, lambda _: stems)
    for stem in stems:  # half of the stems are not enough
        assert list(plan([str(songs)], *left).todo) == [out / "a", out / "b"]
        (out / "b" / stem).write_text("")
    (out / ".b.1234abcd.part").mkdir()  # from killed processes
    (out / ".a.1234abcd.part").mkdir()
    assert list(plan([str(songs)], *left).todo) == [out / "a"]
    assert [path.name for path in out.glob(".*")] == [
        ".a.1234abcd.part"
    ]  # is removed when a is written
    with pytest.raises(ConfigError, match=r"^--skip_existing: found --overwrite too"):
        plan([str(songs)], out, True, True)
    (out / "drums").mkdir()
    with pytest.raises(ConfigError, match=r"drums\.wav: found in the folder of its own stems"):
        plan([str(out / "drums" / "drums.wav")], out, True, False)
    (out / "a").write_text("")
    with pytest.raises(ConfigError, match=r"out/a: found a file, expected a folder or nothing$"):
        plan([str(songs)], out, True, False)
    with pytest.raises(ConfigError, match=r"^\.\.wav: found no name before the extension"):
        plan(["..wav"], out, False, False)
    with pytest.raises(ConfigError, match=r"^--output_dir: found nothing, expected a folder$"):
        plan(["c.wav"], "", False, False)
    for folder in (songs / "b.wav", songs / "b.wav" / "below"):
        with pytest.raises(ConfigError, match=rf"^{folder}: cannot be written to, expected"):
            plan(["c.wav"], folder, False, False)


def test_plan_of_folders_in_folders(tmp_path, capsys):
    music, out = tmp_path / "music", tmp_path / "out"
    for name in ("B/01.flac", "A/01.flac", "A/disc2/01.mp3", "A/scans/x.jpg", "A/.hidden/z.wav"):
        (music / name).parent.mkdir(parents=True, exist_ok=True)
        (music / name).write_bytes(b"x")
    (music / "up").symlink_to(music)  # a circle
    one, two, three = (str(music / name) for name in ("A/01.flac", "A/disc2/01.mp3", "B/01.flac"))

    def todo(*given, out=out):
        return plan([*map(str, given)], out, False, True, lambda _: ["v.wav"], recursive=True).todo

    mirrored = {out / "A/01": one, out / "A/disc2/01": two, out / "B/01": three}
    assert todo(music) == todo(music / "A", music / "B") == todo(one, two, three) == mirrored
    assert todo(music, "-") == {**mirrored, out / "stdin": "-"}
    assert todo(two) == {out / "01": two}
    assert list(todo(music / "A")) == [out / "01", out / "disc2/01"]

    inside = music / "A" / "stems"  # not searched for recordings
    (inside / "01").mkdir(parents=True)
    (inside / "01" / "v.wav").write_bytes(b"x")
    (inside / ".01.1234abcd.part").mkdir()  # from a killed process
    planned = plan([str(music / "A")], inside, False, True, lambda _: ["v.wav"], recursive=True)
    assert planned.todo == {inside / "disc2/01": two}
    assert planned.finished == [inside / "01"]
    assert os.listdir(inside) == ["01"]
    with pytest.raises(ConfigError, match=rf"^{music}/A/01: found in {music}/A, which is searched"):
        todo(music / "A", music / "B", out=music)

    planned = plan([str(music / "A"), str(tmp_path / "x.wav")], out, False, False)
    assert planned.todo == {out / "01": one, out / "x": str(tmp_path / "x.wav")}
    assert planned.left_out == [str(music / "A" / "disc2"), str(inside)]
    assert plan([str(music / "A")], inside, False, True).left_out == [str(music / "A" / "disc2")]
    warn_of_left_out(planned)
    line = f"warning: left out without --recursive: {music}/A/disc2, {inside}\n"
    assert capsys.readouterr().err == line
    with pytest.raises(ConfigError, match=f"^{music}: found audio files only in folders inside it"):
        plan([str(music)], out, False, False)
