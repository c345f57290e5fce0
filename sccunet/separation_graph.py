"""Separation of recordings and WAV files as TensorFlow ops, for the SavedModel."""

import keras
import tensorflow as tf

from sccunet import spectral
from sccunet.config import Config, ModelConfig
from sccunet.devices import PATCHES_ON_GPU
from sccunet.patching import Patching


def separate_graph(waveform: tf.Tensor, unet: keras.Model, config: Config) -> dict[str, tf.Tensor]:
    """Does what `Separator` does in TensorFlow ops, in a loop over places of the recordings.

    A call of the network separates up to `_patches_per_call` patches: of several rows of the batch,
    channels or pairs of them, and places. So its memory does not depend on the request's size.

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
    batch_size = _patches_per_call()
    places = tf.maximum(1, batch_size // tf.maximum(1, rows))  # that are separated together

    def body(i, tail, done):
        first = i * places
        n = tf.minimum(places, count - first)
        there = mixture[..., first * step : (first + n - 1) * step + model.patch_samples]
        patches = tf.transpose(tf.signal.frame(there, model.patch_samples, step), (2, 0, 1, 3))
        ready, tail = _overlapped(_estimate(patches, unet, model, batch_size), tail, patching)
        # The first patch fades in before the recording starts; the last may end after its end.
        given = first * step - fade
        ready = ready[tf.maximum(0, -given) : tf.minimum(n * step, samples - given)]
        done = [pieces.write(i, ready[:, k]) for k, pieces in enumerate(done)]
        return i + 1, tail, done

    # One list of pieces per stem: joining then needs memory for a single stem.
    calls = -(-count // places)
    pieces = [
        tf.TensorArray(tf.float32, calls, element_shape=[None, None, together], infer_shape=False)
        for _ in model.stems
    ]
    _, _, pieces = tf.while_loop(
        lambda i, *_: i < calls,
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


def _patches_per_call() -> tf.Tensor:
    """As `devices.patches_per_call`, for the device on which the loaded graph runs."""
    on_gpu = tf.raw_ops.DeviceIndex(device_names=["CPU", "GPU"]) == 1
    return tf.where(on_gpu, PATCHES_ON_GPU, 1)


def _estimate(
    patches: tf.Tensor, unet: keras.Model, model: ModelConfig, batch_size: tf.Tensor
) -> tf.Tensor:
    """Separates mixture patches; weights the stems for their sum.

    Args:
      patches: [places, rows, channels, patch_samples].
      unet, model: as in `separate_patches`.
      batch_size: number of patches in a call of the network.

    Returns:
      [places, rows, stems, channels, keep].
    """
    patching = Patching.of(model)
    window, stems = tf.constant(patching.window), len(model.stems)
    places, rows = tf.unstack(tf.shape(patches)[:2])
    patches = tf.reshape(patches, [-1, model.channels, model.patch_samples])
    calls = -(-(places * rows) // batch_size)

    def separate(i, done):
        estimate = spectral.separate_patches(
            patches[i * batch_size : (i + 1) * batch_size], unet, model
        )
        return i + 1, done.write(i, estimate[..., patching.kept] * window)

    shape = [None, stems, model.channels, patching.keep]
    done = tf.TensorArray(tf.float32, calls, element_shape=shape, infer_shape=False)
    _, done = tf.while_loop(
        lambda i, _: i < calls, separate, (tf.constant(0), done), parallel_iterations=1
    )
    return tf.reshape(done.concat(), [places, rows, *shape[1:]])


def _overlapped(
    estimates: tf.Tensor, tail: tf.Tensor, patching: Patching
) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds what neighbouring places share.

    Args:
      estimates: [places, rows, stems, channels, keep].
      tail: of the place before them, [rows, stems, channels, fade].
      patching: of the model.

    Returns:
      [places * step, stems, rows, channels], which join along the first axis; and the last tail.
    """
    fade, step = patching.fade, patching.step
    tails = tf.concat([tail[None], estimates[..., step:]], axis=0)
    ready = tf.concat([estimates[..., :fade] + tails[:-1], estimates[..., fade:step]], axis=-1)
    ready = tf.transpose(ready, (0, 4, 2, 1, 3))
    places, rows = tf.shape(ready)[0], tf.shape(ready)[3]
    return tf.reshape(ready, [places * step, ready.shape[2], rows, ready.shape[4]]), tails[-1]


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
