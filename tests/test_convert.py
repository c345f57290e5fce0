"""Workdirs to PyTorch checkpoints and back."""

import pytest

from sccunet import build_model
from sccunet.checkpoints import BEST
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.runs import CONFIG, load_config, load_unet

pytest.importorskip("torch")

from experiments import convert, twin

_CONFIG = Config(
    model=ModelConfig(
        stems=("a", "b", "c"),
        frame_length=64,
        hop_length=16,
        patch_samples=600,
        filters=(4, 6, 8),
    ),
    loss_weights=(0.5, 0.25, 0.25),
    seed=7,
)


@pytest.fixture(scope="module")
def unet():
    return build_model(_CONFIG)


def _bits(unet):
    return {weight.path: weight.numpy().tobytes() for weight in unet.weights}


@pytest.mark.slow
def test_convert_there_and_back(program, make_run, randomise, tmp_path):
    run = make_run(tmp_path / "run", _CONFIG, randomise)
    checkpoint, new = tmp_path / "folder" / "twin.pt", tmp_path / "other" / "new"
    done = program("convert", f"--workdir={run}", f"--output={checkpoint}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"PyTorch checkpoint: {checkpoint}\n"
    done = program("convert", f"--checkpoint={checkpoint}", f"--workdir={new}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"config and weights: {new}\n"
    assert sorted(entry.name for entry in new.iterdir()) == [BEST, CONFIG]
    assert [entry.name for entry in new.parent.iterdir()] == ["new"]
    assert (new / CONFIG).read_text() == (run / CONFIG).read_text()
    assert load_config(new) == _CONFIG
    assert _bits(load_unet(new, _CONFIG)) == _bits(load_unet(run, _CONFIG))


def _refusal(function, *arguments):
    with pytest.raises(ConfigError) as caught:
        function(*map(str, arguments))
    return str(caught.value)


def test_existing_files_are_not_overwritten(unet, tmp_path):
    checkpoint = tmp_path / "twin.pt"
    twin.write_checkpoint(checkpoint, twin.to_torch(unet, _CONFIG), _CONFIG)
    (tmp_path / "new").mkdir()
    before = checkpoint.read_bytes()
    message = _refusal(convert.to_checkpoint, tmp_path / "run", checkpoint)
    assert message == f"{checkpoint}: found an existing file, expected a new one"
    message = _refusal(convert.to_workdir, checkpoint, tmp_path / "new")
    assert message == f"{tmp_path}/new: found an existing folder, expected a new one"
    assert checkpoint.read_bytes() == before
    assert not list((tmp_path / "new").iterdir())


def test_a_checkpoint_that_does_not_fit_its_config_leaves_nothing(unet, tmp_path):
    wrong, none = tmp_path / "wrong.pt", tmp_path / "none"
    twin.write_checkpoint(wrong, twin.to_torch(unet, _CONFIG), Config())
    assert _refusal(convert.to_workdir, wrong, none).startswith(f"{wrong}: weights: found")
    assert [entry.name for entry in tmp_path.iterdir()] == ["wrong.pt"]


def test_convert_says_what_is_missing(tmp_path):
    run, file = tmp_path / "run", tmp_path / "twin.pt"
    message = _refusal(convert.to_checkpoint, run, file)
    assert message.startswith(f"{run}: found no such folder, expected a training workdir")
    message = _refusal(convert.to_workdir, file, run)
    assert message == f"{file}: found no such file, expected a checkpoint"
    run.mkdir()
    (run / CONFIG).write_text(_CONFIG.to_json())
    message = _refusal(convert.to_checkpoint, run, file)
    assert message == f"{run}/{BEST}: found no such file, expected weights"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_convert_goes_one_way(program, refusal, tmp_path):
    one = "--output, --checkpoint: found {}, expected one of them"
    run, file = tmp_path / "run", tmp_path / "twin.pt"
    assert refusal(program("convert", f"--workdir={run}")) == one.format("neither")
    done = program("convert", f"--workdir={run}", f"--output={file}", f"--checkpoint={file}")
    assert refusal(done) == one.format("both")
    assert not list(tmp_path.iterdir())
