"""The device code (STFT, network, loss, training step) on Keras's torch backend."""

import os
import subprocess
import sys

import numpy as np
import pytest

from sccunet import spectral
from sccunet.config import Config, ModelConfig
from sccunet.patching import Patching
from sccunet.separation import Separator
from sccunet.training import compile_trainer
from sccunet.unet import build_model

_CONFIG = Config(
    model=ModelConfig(
        filters=(4, 8), frame_length=512, hop_length=128, patch_samples=8192, dropout=0.0
    ),
    batch_size=2,
)


def _results(weights) -> dict[str, np.ndarray]:
    """Results of one backend for the same waveforms and weights."""
    unet = build_model(_CONFIG)
    unet.load_weights(weights)
    waveforms = np.random.default_rng(0).normal(size=(2, 4, 8192)).astype(np.float32)
    mixture, targets = spectral.training_magnitudes(waveforms, _CONFIG.model)
    # At a patch's edges backends differ; separation does not use them.
    patching = Patching.of(_CONFIG.model)
    kept = slice(patching.margin, patching.margin + patching.keep)
    separated = spectral.separate_patches(waveforms.sum(axis=1), unet, _CONFIG.model)
    recording = Separator.from_model(unet, _CONFIG)(waveforms[0].T[:, :2], 44_100)
    trainer = compile_trainer(unet, _CONFIG, (0.3, 0.3, 0.2, 0.2), 10)
    # `fit` as in experiments/training/fit.py, on an array instead of a stream.
    history = trainer.fit(waveforms, epochs=3, batch_size=2, verbose=0)
    from keras import ops

    return {
        "mixture": ops.convert_to_numpy(mixture),
        "targets": ops.convert_to_numpy(targets),
        "separated": ops.convert_to_numpy(separated)[..., kept],
        "recording": np.stack(list(recording.values())),
        "losses": np.asarray(history.history["loss"]),
    }


@pytest.mark.slow
def test_torch_backend_gives_tensorflows_results(tmp_path):
    pytest.importorskip("torch")
    weights, out = tmp_path / "w.weights.h5", tmp_path / "torch.npz"
    build_model(_CONFIG).save_weights(weights)
    ours = _results(weights)
    subprocess.run(
        [sys.executable, __file__, weights, out],
        # Threads of small networks wait for each other, above all next to another test worker.
        env={**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"},
        check=True,
    )
    theirs = np.load(out)
    for name, value in ours.items():
        scale = max(1.0, np.abs(value).max())
        np.testing.assert_allclose(theirs[name], value, atol=1e-4 * scale, err_msg=name)
    assert ours["losses"][-1] < ours["losses"][0]


if __name__ == "__main__":
    np.savez(sys.argv[2], **_results(sys.argv[1]))
