"""Table of the SavedModel's signatures, for the export, its metadata and its check.

TensorFlow Serving and `saved_model_cli show` use these names. The first axis of each tensor is the
batch. Every signature has an input, since TensorFlow Serving's REST interface requires one.

serving_default  `waveform` float32 [batch, samples, channels] at the model's rate, full scale 1
                 -> one tensor of that shape per stem, named after it
separate_wav     `wav_bytes` string [batch]: 16-bit PCM WAV files at the model's rate
                 -> `<stem>_wav_bytes` string [batch]: the same, each as long as its input
magnitudes       `mixture_magnitudes` float32 [batch, bins, frames], linear; with a network of two
                 channels [batch, bins, frames, 2]
                 -> one tensor of that shape per stem, named after it
metadata         `request` string [batch], ignored -> `metadata` string [batch]: JSON
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sccunet.config import Config, ModelConfig
from sccunet.separation import Separator
from sccunet.separation_graph import separate_graph, separate_wav_graph


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of a signature; axes of any size have a name instead of a number."""

    dtype: str
    shape: tuple[int | str, ...]
    unit: str


@dataclasses.dataclass(frozen=True)
class Signature:
    """One signature: a tensor in, named tensors out; the first axis of each is the batch.

    Attributes:
      function: the TensorFlow ops; its argument has the name in `input`.
      input: name of the input tensor.
      takes: the input tensor.
      gives: the output tensors by name.
      example: a request. The export is checked with it, and TensorFlow Serving warms up with one
        like its first row.
      expected: function from a request to the result of the network in memory, in the form that
        `check_export` expects.
    """

    function: Callable[..., dict[str, tf.Tensor]]
    input: str
    takes: Tensor
    gives: Mapping[str, Tensor]
    example: np.ndarray
    expected: Callable[[np.ndarray], dict[str, Any]]

    def concrete(self) -> Callable:
        """Returns the function, traced for its input."""
        shape = [size if isinstance(size, int) else None for size in self.takes.shape]
        spec = tf.TensorSpec(shape, self.takes.dtype)
        return tf.function(self.function).get_concrete_function(**{self.input: spec})

    def document(self) -> dict[str, Any]:
        """Returns the signature's entry in the metadata."""
        tensors = {"inputs": {self.input: self.takes}, "outputs": self.gives}
        return {
            side: {name: dataclasses.asdict(tensor) for name, tensor in named.items()}
            for side, named in tensors.items()
        }


def signatures(
    unet: keras.Model, config: Config, description: tf.saved_model.Asset
) -> dict[str, Signature]:
    """Returns the table of all signatures; the first is the default.

    Args:
      unet: from `build_model` or `fold`, with its weights.
      config: config of the run that trained it.
      description: the file with the export's metadata.
    """
    return {
        "serving_default": _serving_default(unet, config),
        "separate_wav": _separate_wav(unet, config),
        "magnitudes": _magnitudes(unet, config),
        "metadata": _metadata(description),
    }


def _serving_default(unet: keras.Model, config: Config) -> Signature:
    model, separator = config.model, Separator.from_model(unet, config)
    tensor = Tensor(
        "float32",
        ("batch", "samples", "channels"),
        f"full scale is 1, {model.sample_rate} Hz, any length, channels"
        + (" on their own" if model.channels == 1 else " in pairs"),
    )

    def expected(batch):
        stems = separator(batch[0], model.sample_rate)
        return {stem: samples[None] for stem, samples in stems.items()}

    return Signature(
        lambda waveform: separate_graph(waveform, unet, config),
        "waveform",
        takes=tensor,
        gives=dict.fromkeys(model.stems, tensor),
        example=_noise(model)[None],
        expected=expected,
    )


def _separate_wav(unet: keras.Model, config: Config) -> Signature:
    model, separator = config.model, Separator.from_model(unet, config)
    tensor = Tensor("string", ("batch",), "16-bit PCM WAV file at that rate")
    noise = _noise(model)
    waveforms = (noise[:1000], noise[:-999, :1])

    def expected(files):
        decoded = [tf.audio.decode_wav(file).audio.numpy() for file in files]
        separated = [separator(waveform, model.sample_rate) for waveform in decoded]
        return {f"{stem}_wav_bytes": [stems[stem] for stems in separated] for stem in model.stems}

    return Signature(
        lambda wav_bytes: separate_wav_graph(wav_bytes, unet, config),
        "wav_bytes",
        takes=tensor,
        gives={f"{stem}_wav_bytes": tensor for stem in model.stems},
        example=np.array(
            [tf.audio.encode_wav(part, model.sample_rate).numpy() for part in waveforms], object
        ),
        expected=expected,
    )


def _magnitudes(unet: keras.Model, config: Config) -> Signature:
    model = config.model
    shape = model.magnitudes_shape
    tensor = Tensor(
        "float32",
        ("batch", *shape),
        f"linear magnitudes of a centred STFT, Hann {model.frame_length}, hop {model.hop_length}",
    )
    noise = np.random.default_rng(0).standard_normal((2, *shape))

    def estimate(mixture_magnitudes):
        return estimate_magnitudes(mixture_magnitudes, unet, model)

    return Signature(
        estimate,
        "mixture_magnitudes",
        takes=tensor,
        gives=dict.fromkeys(model.stems, tensor),
        example=np.abs(noise).astype(np.float32),
        expected=lambda batch: {stem: x.numpy() for stem, x in estimate(batch).items()},
    )


def estimate_magnitudes(
    mixture: tf.Tensor, unet: keras.Model, model: ModelConfig
) -> dict[str, tf.Tensor]:
    """Applies the network in the form of the signature `magnitudes`, [batch, *magnitudes_shape]."""
    shape = [-1, *model.magnitudes_shape]
    magnitudes = tf.reshape(mixture, [-1, model.bins, model.frames, model.channels])
    estimates = unet(magnitudes, training=False)
    stems = tf.split(estimates, len(model.stems), axis=-1)
    return {stem: tf.reshape(x, shape) for stem, x in zip(model.stems, stems, strict=True)}


def _metadata(description: tf.saved_model.Asset) -> Signature:
    def describe(request):
        text = tf.io.read_file(description.asset_path)
        return {"metadata": tf.fill(tf.shape(request), text)}

    def expected(batch):
        text = Path(description.asset_path.numpy().decode()).read_text()
        return {"metadata": [text] * len(batch)}

    return Signature(
        describe,
        "request",
        takes=Tensor("string", ("batch",), "ignored"),
        gives={"metadata": Tensor("string", ("batch",), "this text")},
        example=np.array(["", ""], object),
        expected=expected,
    )


def _noise(model: ModelConfig) -> np.ndarray:
    """A waveform [samples, 2] a little longer than a patch, so that two patches are joined."""
    noise = np.random.default_rng(0).standard_normal((model.patch_samples + 1, 2))
    return (0.1 * noise).astype(np.float32)
