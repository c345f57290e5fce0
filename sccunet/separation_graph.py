"""Separation of recordings and WAV files as TensorFlow ops, for the SavedModel."""

import keras
import tensorflow as tf

from sccunet import spectral
from sccunet.config import Config, ModelConfig
from sccunet.patching import Patching


def separate_graph(waveform: tf.Tensor, unet: keras.Model, config: Config) -> dict[str, tf.Tensor]:
    """Does what `Separator` does in TensorFlow ops, in a loop that holds one patch at a time.

    Rows of the batch, and the channels or pairs of them, are also separated one by one, so the
    network's memory does not depend on the size of the request.

    Args:
      waveform: float32 [batch, samples, channels], at the model's sample rate.
      unet: from `build_model`.
      config: config of the run that trained it.

    Returns:
      Stem name -> float32 [batch, samples, channels].
    """
    model, patching = config.model, Patching.of(config.model)
    stems, step, fade = len(model.stems), patching.step, patching.fade
    mixture, together = _rows(waveform, model.channels), model.channels
    rows, samples = tf.shape(mixture)[0], tf.shape(mixture)[2]
    count = patching.count(samples)
    behind = count * step + model.patch_samples - step - patching.lead - samples
    mixture = tf.pad(mixture, [[0, 0], [0, 0], [patching.lead, tf.maximum(behind, 0)]])

    def body(i, tail, done):
        estimate = _estimate(mixture[..., i * step : i * step + model.patch_samples], unet, model)
        ready = tf.concat([estimate[..., :fade] + tail, estimate[..., fade:step]], axis=-1)
        # The first patch fades in before the recording starts; the last may end after its end.
        given = i * step - fade
        ready = ready[..., tf.maximum(0, -given) : tf.minimum(step, samples - given)]
        # [rows, stems, together, n] -> [n, stems, rows, together]: they join along the first axis.
        ready = tf.transpose(ready, (3, 1, 0, 2))
        done = [pieces.write(i, ready[:, k]) for k, pieces in enumerate(done)]
        return i + 1, estimate[..., step:], done

    # One list of pieces per stem: joining then needs memory for a single stem.
    pieces = [
        tf.TensorArray(tf.float32, count, element_shape=[None, None, together], infer_shape=False)
        for _ in model.stems
    ]
    _, _, pieces = tf.while_loop(
        lambda i, *_: i < count,
        body,
        (tf.constant(0), tf.zeros([rows, stems, together, fade]), pieces),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([None, stems, together, fade]),
            [tf.TensorShape(None)] * stems,
        ),
        parallel_iterations=1,
    )
    return {
        stem: _joined(parts.concat(), tf.shape(waveform))
        for stem, parts in zip(model.stems, pieces, strict=True)
    }


def _rows(waveform: tf.Tensor, together: int) -> tf.Tensor:
    """[batch, samples, channels] -> [rows, together, samples], with `channel_rows` of each row."""
    batch, samples, channels = tf.unstack(tf.shape(waveform))
    rows = -(-channels // together)
    index = tf.minimum(tf.range(rows * together), channels - 1)
    mixture = tf.gather(tf.transpose(waveform, (0, 2, 1)), index, axis=1)
    return tf.reshape(mixture, [batch * rows, together, samples])


def _joined(stem: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """[samples, rows, together] of `_rows` -> `shape`, [batch, samples, channels]."""
    batch, samples, channels = tf.unstack(shape)
    joined = tf.reshape(stem, [samples, batch, -(-channels // stem.shape[-1]) * stem.shape[-1]])
    # The last channel is the mean of both if it went in twice, otherwise of itself.
    last = (joined[..., channels - 1 :][..., :1] + joined[..., -1:]) / 2
    joined = tf.concat([joined[..., : channels - 1], last], axis=-1)
    return tf.transpose(joined, (1, 0, 2))


def _estimate(patches: tf.Tensor, unet: keras.Model, model: ModelConfig) -> tf.Tensor:
    """Separates mixture patches row by row; weights the stems for their sum.

    Args:
      patches: [rows, channels, patch_samples].
      unet, model: as in `separate_patches`.

    Returns:
      [rows, stems, channels, keep].
    """
    patching = Patching.of(model)
    window = tf.constant(patching.window)

    def separate_patch(patch):
        estimate = spectral.separate_patches(patch[None], unet, model)[0]
        return estimate[..., patching.kept] * window

    return tf.map_fn(
        separate_patch,
        tf.ensure_shape(patches, [None, model.channels, model.patch_samples]),
        parallel_iterations=1,
        fn_output_signature=tf.TensorSpec(
            [len(model.stems), model.channels, patching.keep], tf.float32
        ),
    )


def separate_wav_graph(
    wav_bytes: tf.Tensor, unet: keras.Model, config: Config
) -> dict[str, tf.Tensor]:
    """Separates WAV files one by one, each with its own length and channels.

    Args:
      wav_bytes: string [batch], 16-bit PCM WAV at the model's sample rate.
      unet: from `build_model`.
      config: config of the run that trained it.

    Returns:
      `<stem>_wav_bytes` -> string [batch]; samples beyond full scale are clipped.
    """
    rate, stems = config.model.sample_rate, config.model.stems

    def separate(wav):
        waveform, found = tf.audio.decode_wav(wav)  # [samples, channels]
        right = tf.debugging.Assert(
            tf.equal(found, rate), ["separate_wav: found a WAV at", found, "Hz, expected", rate]
        )
        with tf.control_dependencies([right]):
            separated = separate_graph(tf.identity(waveform)[None], unet, config)
        return [tf.audio.encode_wav(separated[stem][0], rate) for stem in stems]

    files = tf.map_fn(
        separate, wav_bytes, fn_output_signature=[tf.string] * len(stems), parallel_iterations=1
    )
    return {f"{stem}_wav_bytes": file for stem, file in zip(stems, files, strict=True)}
