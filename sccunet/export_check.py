"""Checks that an export computes the same as the network in memory."""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sccunet.config import ConfigError, ModelConfig
from sccunet.files import plain_path
from sccunet.folding import fold

# Differences allowed relative to the largest value: between loaders, and from folding.
_TOLERANCE = 1e-5
_FOLDING = 1e-4

Request = tuple[str, dict[str, np.ndarray]]


def check_export(
    export: Path, requests: Sequence[Request], expected: Sequence[Mapping[str, Any]]
) -> None:
    """Runs signatures in a fresh process with both of TensorFlow's loaders, and compares results.

    Args:
      export: the SavedModel's folder.
      requests: pairs of a signature's name and its inputs.
      expected: for each request, output name -> rows: arrays, texts, or the waveforms of WAV files.

    Raises:
      ConfigError: if the export does not run, or returns something else.
    """
    with plain_path(export) as plain:
        by_loader = _in_fresh_process(plain, requests)
    for loader, results in by_loader.items():
        for (signature, _), found, truth in zip(requests, results, expected, strict=True):
            if reason := difference(found, truth):
                raise ConfigError(
                    f"{export}: signature '{signature}' by the {loader} loader: {reason}"
                )


def _in_fresh_process(
    export: str, requests: Sequence[Request]
) -> dict[str, list[dict[str, np.ndarray]]]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("requests", "results")]
        paths[0].write_bytes(pickle.dumps(list(requests)))
        done = subprocess.run(
            [sys.executable, "-m", "sccunet.run_saved_model", export, *paths],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            # The calling process holds the GPU's memory, and a GPU may compute differently.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        )
        if done.returncode:
            # The exception's name and message, in one line.
            reason = " ".join(done.stderr.strip().rpartition("\n  ")[2].split("\n")[1:])
            raise ConfigError(
                f"{export}: does not run in a fresh process"
                f" ({reason or f'it ended with {done.returncode}'})"
            )
        return pickle.loads(paths[1].read_bytes())


def checked_fold(unet: keras.Model, model: ModelConfig) -> keras.Model:
    """Folds batch normalisation into the network (`sccunet.folding`) and checks the result.

    Raises:
      ConfigError: if the folded network computes something else.
    """
    folded, shape = fold(unet), (1, model.bins, model.frames, model.channels)
    noise = np.abs(np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    found, expected = ({"magnitudes": net(noise, training=False).numpy()} for net in (folded, unet))
    if reason := difference(found, expected, _FOLDING):
        raise ConfigError(f"batch normalisation does not fold: {reason}")
    return folded


def difference(
    found: Mapping[str, Any], expected: Mapping[str, Any], most: float = _TOLERANCE
) -> str | None:
    """Describes how a signature's result differs from the expected one; None if it does not.

    Args:
      found: output name -> rows: arrays, or bytes (a text, or a WAV file).
      expected: the same with a str for a text and a waveform [samples, channels] for a WAV file.
      most: largest allowed difference, relative to the row's largest value if that is over 1.
    """
    if sorted(found) != sorted(expected):
        return f"found the outputs {sorted(found)}, expected {sorted(expected)}"
    for name, truth in expected.items():
        for got, want in zip(found[name], truth, strict=True):
            if isinstance(want, str):
                if got.decode() != want:
                    return f"found another text in '{name}', expected the one that was written"
                continue
            tolerance = most * max(1.0, float(np.abs(want).max(initial=0)))
            if isinstance(got, bytes):
                got, want = tf.audio.decode_wav(got).audio.numpy(), np.clip(want, -1, 1)
                tolerance += 1 / 32768  # half of it for rounding, half for full scale
            error = float(np.abs(got - want).max()) if got.shape == want.shape else np.inf
            if not error <= tolerance:
                return (
                    f"'{name}' differs from the model in memory by {error:.1e},"
                    f" expected at most {tolerance:.0e}"
                )
    return None
