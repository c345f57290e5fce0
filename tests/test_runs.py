"""Workdirs, exports and their versions, also those of older releases."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from sccunet import runs
from sccunet.config import AugmentConfig, Config, ConfigError
from sccunet.model_card import read_about
from sccunet.provenance import NOT_STATED
from sccunet.runs import (
    BEST,
    CARD,
    CHECKPOINT,
    CONFIG,
    DEFAULT,
    METADATA,
    MODELS,
    NETWORK,
    exported_version,
    kind_of,
    load_config,
    model_path,
    new_version,
)
from sccunet.separation import Separator

# A workdir and an export that version 0.1.0 (commit f83ed78) made with random weights, a recording
# and its stems, separated by that version.
_OLD = Path(__file__).parent / "data" / "old_run.zip"


def test_load_config_of_workdir_and_export(tmp_path):
    config = Config(seed=5, augment=AugmentConfig(gain_db=3.0))
    (tmp_path / CONFIG).write_text(config.to_json())
    assert load_config(tmp_path) == config
    exported = tmp_path / "export"
    _export(exported, config)
    assert load_config(str(exported)) == config


def _export(folder, config):
    (folder / METADATA).parent.mkdir(parents=True)
    (folder / METADATA).write_text(json.dumps({"stems": [], "config": config.to_dict()}))
    (folder / "saved_model.pb").write_bytes(b"")


def test_kinds_of_models_are_told_apart(tmp_path):
    """The config of each is loaded; only a workdir's where only that will do."""
    config = Config(seed=5)
    for name, files in {
        "run": (),
        "portable": (NETWORK,),
        "both": (NETWORK, BEST),  # a workdir with a network beside its weights
        "trainable": (NETWORK, BEST, CARD),
        "annotated": (NETWORK, BEST, CARD, CHECKPOINT),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / CONFIG).write_text(config.to_json())
        for file in files:
            (tmp_path / name / file).write_bytes(b"")
    _export(tmp_path / "base" / "1", config)
    kinds = {
        "run": "training workdir",
        "both": "training workdir",
        "annotated": "training workdir",
        "portable": "portable model",
        "trainable": "portable model",
        "base": "SavedModel",
        "base/1": "SavedModel",
    }
    assert {name: kind_of(tmp_path / name) for name in kinds} == kinds
    assert kind_of(tmp_path) is kind_of(tmp_path / "missing") is None
    for name, kind in kinds.items():
        assert load_config(tmp_path / name) == config
        if kind == "training workdir":
            assert load_config(tmp_path / name, workdir=True) == config
        else:
            refused = rf"{name}: found a {kind}, expected a training workdir: no others can be tr"
            with pytest.raises(ConfigError, match=refused):
                load_config(tmp_path / name, workdir=True)
    with pytest.raises(ConfigError, match=r"found no such folder, expected a training workdir$"):
        load_config(tmp_path / "missing", workdir=True)


def test_models_that_ship_with_the_package(tmp_path, monkeypatch):
    shipped = runs.shipped_models()
    assert sorted(shipped) == sorted(runs._SHIPPED.iterdir())
    assert shipped[0].name == DEFAULT
    for folder in shipped:
        files = {entry.name: entry.stat().st_size for entry in folder.iterdir()}
        assert {CARD, CONFIG, NETWORK} <= {*files} <= {CARD, CONFIG, NETWORK, BEST}
        assert files[NETWORK] < 8e6
        assert kind_of(folder) == "portable model"
        assert "vocals" in load_config(folder).model.stems
        card = (folder / CARD).read_text()
        assert f"\n# {folder.name}\n" in card
        assert f"sccunet separate --model={folder.name} song.mp3" in card
        for section in ("Intended use", "Training data", "Recipe", "Scores", "Known failures"):
            assert f"\n## {section}\n" in card
        about = read_about(card)
        assert NOT_STATED not in (about.training_data, about.licence, about.scores)
    monkeypatch.chdir(tmp_path)
    assert [model_path(), *map(model_path, (x.name for x in shipped))] == [shipped[0], *shipped]
    assert model_path(f"./{DEFAULT}") == Path(DEFAULT)
    assert model_path(f"{DEFAULT}/") == shipped[0]
    Path(DEFAULT).mkdir()
    assert model_path(DEFAULT) == Path(DEFAULT)  # a path that exists


def test_an_installation_without_models(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_SHIPPED", tmp_path)
    (tmp_path / "rest").mkdir()
    expected = f"--model: not given, expected {MODELS}: no model ships with this installation"
    with pytest.raises(ConfigError) as caught:
        model_path()
    assert str(caught.value) == expected
    assert model_path("run") == Path("run")
    for name in ("another", "small", DEFAULT):
        (tmp_path / name).mkdir()
        (tmp_path / name / NETWORK).write_bytes(b"")
    assert model_path() == tmp_path / DEFAULT
    assert runs.shipped_names() == f"{DEFAULT}, another, small"


def test_the_newest_version_of_an_export_is_used(tmp_path):
    assert exported_version(tmp_path) == tmp_path
    for version in (1, 9, 10):
        _export(tmp_path / str(version), Config(seed=version))
    (tmp_path / "11").mkdir()  # not an export
    (tmp_path / ".12.part").mkdir()
    assert exported_version(tmp_path) == tmp_path / "10"
    assert load_config(tmp_path) == Config(seed=10)
    assert load_config(tmp_path / "9") == Config(seed=9)
    assert exported_version(tmp_path / "9") == tmp_path / "9"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": {"batch_size": 0}}'])
def test_damaged_metadata_is_named(tmp_path, text):
    _export(tmp_path / "1", Config())
    (tmp_path / "1" / METADATA).write_text(text)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/1/assets/metadata\.json: "):
        load_config(tmp_path)


def test_load_config_names_what_it_did_not_find(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    expected = "expected a portable model, a training workdir or an exported SavedModel"
    assert str(caught.value) == f"{tmp_path}: found no config.json, {expected}"
    missing = tmp_path / "missing"
    with pytest.raises(ConfigError) as caught:
        load_config(missing)
    expected += f", or the name of one that ships with sccunet ({runs.shipped_names()})"
    assert str(caught.value) == f"{missing}: found no such folder, {expected}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "found an empty file, expected the JSON"),
        ('{"seed": 1', "found no JSON ("),
        ("[]", "expected a dict of fields"),
        ('{"model": {"dropout": 2}}', "config.model.dropout: found 2"),
    ],
)
def test_load_config_names_the_damaged_file(tmp_path, text, reason):
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / CONFIG}: ")
    assert reason in str(caught.value)


def test_new_versions(tmp_path):
    assert new_version(tmp_path / "missing") == 1
    for name in ("1", "3", "10", "11.part", "x", ".12"):
        (tmp_path / name).mkdir()
    assert new_version(tmp_path) == 11
    assert new_version(tmp_path, 2) == 2
    (tmp_path / "1" / "saved_model.pb").write_text("")
    (tmp_path / "3" / "config.json").write_text("")
    for base, found in ((tmp_path / "1", "saved_model.pb"), (tmp_path / "3", "config.json")):
        with pytest.raises(ConfigError, match=f"found {found} in it, expected a folder for ver"):
            new_version(base)
    with pytest.raises(ConfigError, match=r"pb: found a file, expected a folder for versions$"):
        new_version(tmp_path / "1" / "saved_model.pb")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    zipfile.ZipFile(_OLD).extractall(folder)
    return folder


def test_runs_of_older_versions_separate_as_before(old):
    assert "loss_balance" not in json.loads((old / "workdir" / CONFIG).read_text())
    stems = dict(np.load(old / "stems.npz"))
    recording = stems.pop("recording").astype(np.float32)
    for path in (old / "workdir", old / "export", old / "export" / "1"):
        separator = Separator.load(path)
        assert separator.config.loss_balance == "volume"
        assert separator.config.loss_weights == (0.7, 0.3)
        found = separator(recording, 44_100)
        assert list(found) == list(stems)
        for stem, truth in stems.items():
            assert truth.std() > 0.02
            np.testing.assert_allclose(found[stem], truth, rtol=0, atol=1e-5)


def test_export_of_an_older_version_runs_without_this_one(old):
    stems = dict(np.load(old / "stems.npz"))
    recording = stems.pop("recording").astype(np.float32)
    separate = tf.saved_model.load(str(old / "export" / "1")).signatures["serving_default"]
    found = separate(waveform=recording[None])
    assert sorted(found) == sorted(stems)
    for stem, truth in stems.items():
        np.testing.assert_allclose(found[stem][0], truth, rtol=0, atol=1e-5)
