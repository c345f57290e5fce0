"""What the program train refuses in one line: bad tracks, and mistakes on its command line."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from kill_training import flags
from tiny_training import LEVELS, config_of, rewrite, train

from data_pipeline import loader, splits
from data_pipeline.errors import AudioError
from experiments.training import records
from experiments.training.options import TrainOptions
from sccunet.config import ConfigError

# Bad tracks, found before anything is written; the tracks `a` and `check` are good.


@pytest.fixture
def bad_dir(write_track, tmp_path):
    for place in ("train/a", "train/bad", "valid/check"):
        write_track(tmp_path / "data" / place, LEVELS, seconds=0.4)
    return tmp_path / "data"


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-400])


_BAD_FILES = {
    "missing": (
        lambda path: path.unlink(),
        "{folder}: found drums.wav, other.wav, vocals.wav, expected bass.wav for the stem 'bass',"
        " or config.augment.mix_tracks over 0: tracks with only some of the stems need mixed crops",
    ),
    "empty": (
        lambda path: path.write_bytes(b""),
        "{path}: found an empty file (0 bytes), expected a WAV file",
    ),
    "unreadable": (
        lambda path: path.write_text("words"),
        "{path}: found no WAV header, expected a WAV file (sccunet prepare converts)",
    ),
    "truncated": (
        _truncate,
        "{path}: found 17540 samples (truncated), expected the 17640 samples that its header"
        " promises",
    ),
    "rate": (
        lambda path: rewrite(path, rate=48_000),
        "{path}: found 48000 Hz, expected 44100 Hz (sccunet prepare converts)",
    ),
    "length": (
        lambda path: rewrite(path, keep=17_000),
        "{path}: found 17000 samples, expected 17640 as in vocals.wav (sccunet prepare --trim cuts"
        " to the shortest)",
    ),
    "NaN": (
        lambda path: rewrite(path, encoding="float32", nan_at=11_025),
        "{path}: found NaN or infinity at sample 11025 (0.25 s), expected finite samples",
    ),
}


@pytest.mark.parametrize("kind", _BAD_FILES)
def test_a_bad_file_stops_before_training_starts(bad_dir, tmp_path, kind):
    spoil, message = _BAD_FILES[kind]
    path = bad_dir / "train" / "bad" / "bass.wav"
    spoil(path)
    with pytest.raises(AudioError) as caught:
        train(bad_dir, tmp_path / "run", config_of(augment__mix_tracks=0.0))
    assert str(caught.value) == message.format(path=path, folder=path.parent)
    assert not (tmp_path / "run").exists()


def test_a_bad_track_that_is_not_named_does_not_matter(bad_dir):
    _truncate(bad_dir / "train" / "bad" / "bass.wav")
    training, *_ = splits.training_split(bad_dir, config_of(), ["a"])
    assert [segment.track.name for segment in training] == ["a"]


def test_a_bad_validation_track_stops_before_training_starts(bad_dir, tmp_path):
    path = bad_dir / "valid" / "check" / "bass.wav"
    rewrite(path, encoding="float32", nan_at=0)
    with pytest.raises(AudioError, match=re.escape(f"{path}: found NaN or infinity at sample 0")):
        train(bad_dir, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_track_shorter_than_a_patch(bad_dir, write_track, tmp_path):
    write_track(bad_dir / "train" / "bad", LEVELS, seconds=0.2)
    with pytest.raises(AudioError) as caught:
        train(bad_dir, tmp_path / "run")
    assert str(caught.value) == (
        f"{bad_dir}/train/bad: found 8820 samples, expected at least 16384"
    )


def test_no_tracks_and_unknown_names(bad_dir, tmp_path):
    def refused(message, data_dir=bad_dir, config=None, names=()):
        with pytest.raises(AudioError) as caught:
            train(data_dir, tmp_path / "run", config, tracks=names)
        assert str(caught.value) == message
        assert not (tmp_path / "run").exists()

    layout = "<split>/<track>/<file>.wav, split being train, valid or test"
    empty, none = tmp_path / "empty", tmp_path / "none"
    empty.mkdir()
    refused(f"{none}: found no such directory, expected tracks in {layout}", none)
    refused(f"{empty}/train: found no tracks, expected {layout}", empty)
    refused(
        f"{bad_dir}: found no track named 'c', expected one of 'a', 'bad', 'check'",
        names=["a", "c"],
    )
    stems = {"model__stems": ("vocals", "piano")}
    refused(
        f"{bad_dir}: found no training track with the stem 'piano', expected piano.wav in at least"
        " one",
        config=config_of(**stems),
    )
    refused(
        f"{bad_dir}/train/a: found bass.wav, drums.wav, other.wav, vocals.wav, expected piano.wav"
        " for the stem 'piano' (and 1 more such track), or config.augment.mix_tracks over 0:"
        " tracks with only some of the stems need mixed crops",
        config=config_of(augment__mix_tracks=0.0, **stems),
    )


def test_a_bad_batch_names_tracks_of_one_name_by_their_folders(bad_dir, tmp_path):
    other = shutil.copytree(bad_dir, tmp_path / "other")
    (other / "train" / "bad").rename(other / "train" / "c")
    config = config_of(batch_size=4)
    training, *_ = splits.training_split([bad_dir, other], config)
    line = records.keep_bad_batch(tmp_path, training, config, 0)
    folders = (bad_dir / "train" / "a", other / "train" / "a")
    assert f", with crops of {folders[0]}, bad, {folders[1]}, c; a lower" in line
    files = np.load(tmp_path / "bad_batch_0.npz")["files"]
    assert {str(Path(file).parent) for file in files.ravel()} >= set(map(str, folders))


def test_what_needs_tensorflow_is_refused_without_it(bad_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "has_tensorflow", lambda: False)
    message = "^--reader=tfio: given, expected mmap without TensorFlow"
    with pytest.raises(ConfigError, match=message):
        train(bad_dir, tmp_path / "run", config_of(), reader="tfio")
    assert not (tmp_path / "run").exists()


# Mistakes on the command line, one of each kind; test_config.py tests the fields.


def test_one_bad_track_among_good_ones_is_one_line(bad_dir, program, refusal, tmp_path):
    path = bad_dir / "train" / "bad" / "bass.wav"
    rewrite(path, encoding="float32", nan_at=11_025)
    message = refusal(program("train", *flags(bad_dir, tmp_path / "run")))
    assert message.startswith(f"{path}: found NaN or infinity at sample 11025")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--config.batch_size=many"], "flag --config.batch_size=many: invalid literal"),
        (["--config.decay=never"], "config.decay: found 'never', expected 'step', 'cosine'"),
        (["--config.model.hop_length=500"], "config.model.hop_length: found 500, expected a"),
        (
            ["--config.model.stems=('vocals',)", "--config.model.output=magnitude"],
            "config.model.stems: found ('vocals',), expected at",
        ),
        (["--config.zeal=3"], "--config.zeal: found no such field, expected one of"),
        (["--config.model.patience=3"], "--config.model.patience: found no such field"),
        (["--strategy=cloud"], "flag --strategy=cloud: value should be one of"),
        (["--strategy=tpu"], "--strategy=tpu: found no TPU 'local' ("),
        (["--reader=soundfile"], "flag --reader=soundfile: value should be one of <mmap|tfio>"),
        (["--trakcs=one"], "Unknown command line flag 'trakcs'"),
        (["one"], "found the argument 'one', expected only --flags"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_invalid_flags(bad_dir, program, refusal, tmp_path, changes, message):
    assert message in refusal(program("train", *flags(bad_dir, tmp_path / "run"), *changes))
    assert not (tmp_path / "run").exists()


def test_flags_that_are_missing(bad_dir, program, refusal, tmp_path):
    config, data, work = flags(bad_dir, tmp_path / "run")[:3]
    assert refusal(program("train", data, work)).startswith("--config: not given, expected a")
    assert "--data_dir: not given, expected a value" in refusal(program("train", config, work))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "found no file '{path}', expected"),
        ("def get_config(:", "found SyntaxError: invalid syntax (mine.py, line 1)"),
        ("import no_such", "found ModuleNotFoundError: No module named 'no_such'"),
        ("def get_config(): return width", "found NameError: name 'width' is not defined"),
        ("WIDTH = 3", "found AttributeError: module 'config_config' has no attribute 'get_config'"),
    ],
)
def test_config_file_that_cannot_be_read(bad_dir, program, refusal, tmp_path, text, reason):
    path = tmp_path / "mine.py"
    if text:
        path.write_text(text)
    flags = [f"--config={path}", f"--data_dir={bad_dir}", f"--workdir={tmp_path / 'run'}"]
    message = refusal(program("train", *flags))
    assert message.startswith(f"--config: {reason.format(path=path)}")


def test_workdir_that_is_a_file(bad_dir, program, refusal, tmp_path):
    workdir = tmp_path / "file"
    workdir.write_text("in the way")
    message = refusal(program("train", *flags(bad_dir, workdir)))
    assert message == f"{workdir}: cannot be read or written (File exists)"
    with pytest.raises(ConfigError, match="found a name that is not UTF-8, expected one that"):
        TrainOptions(bad_dir, "lat\udce9")
