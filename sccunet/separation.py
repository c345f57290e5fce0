"""A whole recording to stems, from a trained workdir or an exported SavedModel."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from sccunet.config import Config, load_config
from sccunet.spectral import Patching

# Mixture patches float32 [batch, patch_samples] -> stems [batch, stems, patch_samples].
PatchSeparator = Callable[[np.ndarray], np.ndarray]


class Separator:
    """Separates recordings of any length by overlapping patches.

    Args:
      separate_patches: the network between analysis and synthesis.
      config: of the run that trained it.
    """

    def __init__(self, separate_patches: PatchSeparator, config: Config):
        self.config = config
        self._separate_patches = separate_patches

    @classmethod
    def from_model(cls, unet, config: Config) -> "Separator":
        """Separates with a model in memory, `sccunet.build_model`'s."""
        import keras
        from keras import ops

        from sccunet import spectral

        def separate(waveforms):
            return spectral.separate_patches(waveforms, unet, config.model)

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            separate = tf.function(
                separate,
                input_signature=[tf.TensorSpec([None, config.model.patch_samples], tf.float32)],
            )
        return cls(
            lambda patches: ops.convert_to_numpy(separate(ops.convert_to_tensor(patches))), config
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Separator":
        """Separates with the best weights of a training workdir, or with an exported SavedModel.

        Raises:
          ConfigError: if `path` is neither, or has no weights yet.
        """
        config = load_config(path)
        path = Path(path)
        if (path / "saved_model.pb").exists():
            import tensorflow as tf

            module = tf.saved_model.load(str(path))
            signature = module.signatures["patches"]

            def separate(patches, module=module):  # the module owns the variables: keep it alive
                return signature(waveforms=patches)["stems"].numpy()

            return cls(separate, config)
        return cls.from_model(load_unet(path, config), config)

    def __call__(self, waveform: np.ndarray, sample_rate: int) -> dict[str, np.ndarray]:
        """Separates a whole recording.

        Args:
          waveform: [samples, channels], any length; each channel is separated on its own.
          sample_rate: in Hz; another one than the model's is resampled there and back.

        Returns:
          Stem name -> float32 [samples, channels].
        """
        blocks = list(self.stream([waveform], sample_rate))
        return {
            stem: np.concatenate([block[stem] for block in blocks])
            for stem in self.config.model.stems
        }

    def stream(
        self, blocks: Iterable[np.ndarray], sample_rate: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Separates a recording that comes in blocks; memory does not depend on its length.

        The stems' blocks have other lengths than the mixture's, but as many samples in all.

        Args:
          blocks: float [samples, channels] each, of any lengths and the same number of channels.
          sample_rate: in Hz.

        Yields:
          Stem name -> float32 [samples, channels].
        """
        rate, stems = self.config.model.sample_rate, self.config.model.stems
        if sample_rate == rate:
            yield from self._stream(blocks)
            return
        samples = given = channels = 0

        def counted():
            nonlocal samples, channels
            for block in blocks:
                samples += len(block)
                channels = block.shape[1]
                yield block

        separated = self._stream(_resampled(counted(), sample_rate, rate))
        joined = (np.concatenate(list(block.values()), axis=1) for block in separated)
        for block in _resampled(joined, rate, sample_rate):
            # Two rounded lengths may differ from the input's by a sample or two at the end.
            block = block[: samples - given]
            given += len(block)
            yield dict(zip(stems, np.split(block, len(stems), axis=1), strict=True))
        missing = np.zeros((samples - given, channels), np.float32)
        yield dict.fromkeys(stems, missing)

    def _stream(self, blocks: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """`stream` at the model's own sample rate."""
        model = self.config.model
        patching = Patching.of(model)
        window = patching.window[:, None]
        fade, step, keep = patching.fade, patching.step, patching.keep
        tail, pieces = None, []
        samples, given = 0, -fade  # of the recording: the first patch fades in before it starts

        def advance(patch: np.ndarray) -> np.ndarray:
            """Samples [stems, step, channels] that no later patch adds to."""
            nonlocal tail
            estimate = self._separate_patches(np.ascontiguousarray(patch.T))
            # [channels, stems, patch_samples] -> [stems, keep, channels]
            estimate = estimate[..., patching.margin : patching.margin + keep].transpose(1, 2, 0)
            estimate = estimate * window
            if tail is not None:
                estimate[:, :fade] += tail
            tail = estimate[:, step:]
            return estimate[:, :step]

        def cut(ready: np.ndarray) -> dict[str, np.ndarray]:
            nonlocal given
            first, last = max(0, -given), min(step, samples - given)
            given += step
            return dict(zip(model.stems, ready[:, first:last], strict=True))

        for block in blocks:
            block = np.asarray(block, np.float32)
            if not pieces:
                pieces = [np.zeros((patching.lead, block.shape[1]), np.float32)]
            pieces.append(block)
            samples += len(block)
            # Pieces are joined once per patch, however small they come.
            if sum(map(len, pieces)) >= model.patch_samples:
                pending = np.concatenate(pieces)
                while len(pending) >= model.patch_samples:
                    yield cut(advance(pending[: model.patch_samples]))
                    pending = pending[step:]
                pieces = [pending]
        while pieces and given < samples:
            pending = np.concatenate(pieces)[: model.patch_samples]
            missing = model.patch_samples - len(pending)
            yield cut(advance(np.pad(pending, ((0, missing), (0, 0)))))
            pieces = [pending[step:]]


def _resampled(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
    """Blocks [samples, channels] at another sample rate."""
    import soxr

    stream = None
    for block in blocks:
        block = np.ascontiguousarray(block, np.float32)
        if stream is None:
            stream = soxr.ResampleStream(from_rate, to_rate, block.shape[1], "float32", "VHQ")
        yield stream.resample_chunk(block)
    if stream is not None:
        yield stream.resample_chunk(block[:0], last=True)


def load_unet(workdir: str | os.PathLike, config: Config):
    """The network of a training workdir with its best weights.

    Raises:
      ConfigError: if there are none, or they do not fit.
    """
    from sccunet.training import BEST, load_weights
    from sccunet.unet import build_model

    unet = build_model(config)
    load_weights(unet, Path(workdir) / BEST)
    return unet
