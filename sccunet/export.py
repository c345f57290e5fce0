"""A SavedModel that anyone can run: waveforms in, named stems out, no Python of ours needed."""

import os
import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from sccunet import spectral
from sccunet.config import EXPORTED_CONFIG, Config, ConfigError
from sccunet.separation import Separator
from sccunet.spectral import Patching


def separate_graph(waveform: tf.Tensor, unet: keras.Model, config: Config) -> dict[str, tf.Tensor]:
    """`Separator` as TensorFlow ops: the same patches, in a loop that holds one at a time.

    Args:
      waveform: float32 [batch, samples, channels], at the model's sample rate.
      unet: from `build_model`.
      config: of the run that trained it.

    Returns:
      Stem name -> float32 [batch, samples, channels].
    """
    model = config.model
    patching = Patching.of(model)
    stems, step, fade = len(model.stems), patching.step, patching.fade
    window = tf.constant(patching.window)
    shape = tf.shape(waveform)
    batch, samples, channels = shape[0], shape[1], shape[2]
    rows = batch * channels
    mixture = tf.reshape(tf.transpose(waveform, (0, 2, 1)), [rows, samples])
    count = patching.count(samples)
    behind = count * step + model.patch_samples - step - patching.lead - samples
    mixture = tf.pad(mixture, [[0, 0], [patching.lead, tf.maximum(behind, 0)]])

    def body(i, tail, done):
        patch = mixture[:, i * step : i * step + model.patch_samples]
        patch = tf.ensure_shape(patch, [None, model.patch_samples])
        estimate = spectral.separate_patches(patch, unet, model)  # [rows, stems, patch_samples]
        estimate = estimate[..., patching.margin : patching.margin + patching.keep] * window
        ready = tf.concat([estimate[..., :fade] + tail, estimate[..., fade:step]], axis=-1)
        return i + 1, estimate[..., step:], done.write(i, ready)

    _, _, done = tf.while_loop(
        lambda i, *_: i < count,
        body,
        (
            tf.constant(0),
            tf.zeros([rows, stems, fade]),
            tf.TensorArray(tf.float32, count, element_shape=[None, stems, step]),
        ),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([None, stems, fade]),
            tf.TensorShape(None),
        ),
        parallel_iterations=1,
    )
    # [patches, rows, stems, step] -> [stems, rows, patches, step]
    joined = tf.transpose(done.stack(), (2, 1, 0, 3))
    # The first patch fades in before the recording starts.
    joined = tf.reshape(joined, [stems, rows, count * step])[..., fade : fade + samples]
    joined = tf.transpose(tf.reshape(joined, [stems, batch, channels, samples]), (0, 1, 3, 2))
    return {stem: joined[i] for i, stem in enumerate(model.stems)}


def export_saved_model(unet: keras.Model, config: Config, export_dir: str | os.PathLike) -> None:
    """Writes a SavedModel, after checking in a copy beside it that it separates as `unet` does.

    Its signatures:
      serving_default: `waveform` float32 [batch, samples, channels] -> one tensor of that shape per
        stem, named after it.
      patches: `waveforms` float32 [batch, patch_samples] -> `stems` [batch, stems, patch_samples].
      config: nothing -> `config`, the resolved config as JSON.

    Args:
      unet: from `build_model`, with its weights.
      config: of the run that trained it.
      export_dir: must not exist yet.

    Raises:
      ConfigError: if `export_dir` exists, or if what was written separates differently.
    """
    export_dir = Path(export_dir)
    if export_dir.exists():
        raise ConfigError(f"{export_dir}: found already there, expected a new folder")
    partial = export_dir.with_name(f".{export_dir.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    model = config.model

    archive = keras.export.ExportArchive()
    archive.track(unet)
    archive.add_endpoint(
        "serving_default",
        lambda waveform: separate_graph(waveform, unet, config),
        [tf.TensorSpec([None, None, None], tf.float32, name="waveform")],
    )
    archive.add_endpoint(
        "patches",
        lambda waveforms: {"stems": spectral.separate_patches(waveforms, unet, model)},
        [tf.TensorSpec([None, model.patch_samples], tf.float32, name="waveforms")],
    )
    archive.add_endpoint("config", lambda: {"config": tf.constant(config.to_json())}, [])
    try:
        archive.write_out(str(partial), verbose=False)
        extra = partial / EXPORTED_CONFIG
        extra.parent.mkdir(exist_ok=True)
        extra.write_text(config.to_json())
        _check(partial, unet, config)
        os.replace(partial, export_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(export_dir: Path, unet: keras.Model, config: Config) -> None:
    """Separates noise, a little longer than two patches, in memory and by what was written."""
    noise = np.random.default_rng(0).standard_normal((2 * config.model.patch_samples + 1, 2))
    noise = (0.1 * noise).astype(np.float32)
    expected = Separator.from_model(unet, config)(noise, config.model.sample_rate)
    signature = tf.saved_model.load(str(export_dir)).signatures["serving_default"]
    found = signature(waveform=tf.constant(noise[None]))
    for stem, truth in expected.items():
        error = float(np.abs(found[stem][0].numpy() - truth).max())
        if not error <= 1e-5 * max(1.0, float(np.abs(truth).max())):
            raise ConfigError(
                f"{export_dir}: stem '{stem}' differs from the model in memory by {error:.1e},"
                " expected at most 1e-05"
            )
