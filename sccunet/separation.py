"""Separates whole recordings with a training workdir or an exported SavedModel."""

import os
from collections.abc import Iterable, Iterator

import numpy as np

from sccunet.config import PRECISIONS, Config, ConfigError
from sccunet.files import plain_path
from sccunet.patching import Patching, channel_rows
from sccunet.reconstruction import PatchSeparator, Reconstruction, patch_separator
from sccunet.runs import exported_version, load_config, load_unet

_MOST_CHANNELS = 256


class Separator:
    """Separates recordings of any length by overlapping patches.

    Args:
      separate_patches: function that separates patches, as from `patch_separator`.
      config: config of the run that trained the network.
    """

    def __init__(self, separate_patches: PatchSeparator, config: Config):
        self.config = config
        self._separate_patches = separate_patches

    @classmethod
    def from_model(
        cls, unet, config: Config, reconstruction: Reconstruction | None = None
    ) -> "Separator":
        """Makes a separator from a model in memory, built by `sccunet.build_model` or any other.

        Args:
          unet: magnitudes [batch, bins, frames, channels] -> [batch, bins, frames,
            stems * channels]. A network from `build_model` is used with its current weights: later
            training has no effect.
          config: config of the run that trained it.
          reconstruction: how the estimates become stems; by default as in the paper.
        """
        reconstruction = reconstruction or Reconstruction()
        return cls(patch_separator(unet, config.model, reconstruction), config)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        reconstruction: Reconstruction | None = None,
        precision: str = "float32",
    ) -> "Separator":
        """Makes a separator from a training workdir's best weights or from an exported SavedModel.

        Args:
          path: a workdir, an export, or the base folder of several exports (the newest is used).
          reconstruction: how the estimates become stems; by default as in the paper.
          precision: "mixed_bfloat16" computes the network's inner layers in bfloat16. This is
            faster on devices that support it, and adds rounding errors (results/benchmark).
            Workdirs only.

        Raises:
          ConfigError: if `path` is neither, has no weights yet, or cannot be loaded.
        """
        if precision not in PRECISIONS:
            raise ConfigError(f"precision: found {precision!r}, expected {' or '.join(PRECISIONS)}")
        config = load_config(path)
        export = exported_version(path)
        if not (export / "saved_model.pb").exists():
            return cls.from_model(load_unet(path, config, precision), config, reconstruction)
        if precision != "float32":
            raise ConfigError(
                f"precision: found {precision!r} for the SavedModel {export}, expected 'float32',"
                " or a training workdir"
            )
        import tensorflow as tf

        with plain_path(export) as plain:
            try:
                module = tf.saved_model.load(plain)
                signature = module.signatures["magnitudes"]
            except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
                reason = (str(error).splitlines() or [""])[0]
                raise ConfigError(
                    f"{export}: found a SavedModel that does not load ({reason}), expected one that"
                    " sccunet export wrote"
                ) from error

        def unet(magnitudes, training, module=module):  # it owns the variables: keep it alive
            one = config.model.channels == 1
            found = signature(mixture_magnitudes=magnitudes[..., 0] if one else magnitudes)
            estimates = [found[stem] for stem in config.model.stems]
            return tf.stack(estimates, axis=-1) if one else tf.concat(estimates, axis=-1)

        return cls.from_model(unet, config, reconstruction)

    def __call__(self, waveform: np.ndarray, sample_rate: int) -> dict[str, np.ndarray]:
        """Separates a whole recording.

        Args:
          waveform: [samples, channels], any length. A model of one channel separates each channel
            on its own. A model of two separates pairs of them; a channel without a partner goes in
            twice, and comes out as the mean of both.
          sample_rate: in Hz; audio at another rate than the model's is resampled there and back.

        Returns:
          Stem name -> float32 [samples, channels].

        Raises:
          ValueError: if `waveform` has another type or shape.
        """
        waveform = _checked(waveform)
        stems = {stem: np.empty(waveform.shape, np.float32) for stem in self.config.model.stems}
        done = 0
        for block in self.stream([waveform], sample_rate):
            for stem, samples in block.items():
                stems[stem][done : done + len(samples)] = samples
            done += len(samples)
        return stems

    def stream(
        self, blocks: Iterable[np.ndarray], sample_rate: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Separates a recording given in blocks; memory does not depend on its length.

        Blocks of stems differ in length from those of the mixture; the total length is the same.

        Args:
          blocks: float [samples, channels] each, of any length, all with the same channels.
          sample_rate: in Hz.

        Yields:
          Stem name -> float32 [samples, channels].

        Raises:
          ValueError: if a block has another type or shape.
        """
        rate, stems = self.config.model.sample_rate, self.config.model.stems
        blocks = map(_checked, blocks)
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
            # Rounding twice may make the stems a sample or two longer or shorter than the input.
            block = block[: samples - given]
            given += len(block)
            yield dict(zip(stems, np.split(block, len(stems), axis=1), strict=True))
        missing = np.zeros((samples - given, channels), np.float32)
        yield dict.fromkeys(stems, missing)

    def _stream(self, blocks: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Does what `stream` does, at the model's own sample rate."""
        model = self.config.model
        patching = Patching.of(model)
        window = patching.window[:, None]
        fade, step = patching.fade, patching.step
        tail, pieces = None, []
        waiting = 0  # samples in the pieces
        samples, given = 0, -fade  # of the recording: the first patch fades in before it starts

        def advance(patch: np.ndarray) -> np.ndarray:
            """Separates a patch; returns the samples [stems, step, channels] that are final."""
            nonlocal tail
            rows = channel_rows(patch.shape[1], model.channels)
            # [samples, channels] -> [rows, model.channels, samples]
            estimate = self._separate_patches(np.ascontiguousarray(patch.T)[rows])
            estimate = estimate[..., patching.kept]
            estimate = _joined(estimate, patch.shape[1]) * window  # [stems, keep, channels]
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
            if not pieces:
                pieces = [np.zeros((patching.lead, block.shape[1]), np.float32)]
                waiting = patching.lead
            pieces.append(block)
            samples += len(block)
            waiting += len(block)
            # Pieces are joined once per patch, however small they are.
            if waiting >= model.patch_samples:
                pending = np.concatenate(pieces)
                while len(pending) >= model.patch_samples:
                    yield cut(advance(pending[: model.patch_samples]))
                    pending = pending[step:]
                pieces, waiting = [pending], len(pending)
        while pieces and given < samples:
            pending = np.concatenate(pieces)[: model.patch_samples]
            missing = model.patch_samples - len(pending)
            yield cut(advance(np.pad(pending, ((0, missing), (0, 0)))))
            pieces = [pending[step:]]


def _joined(estimate: np.ndarray, channels: int) -> np.ndarray:
    """[rows, stems, model.channels, n] of `channel_rows` -> [stems, n, channels]."""
    rows, stems, together, n = estimate.shape
    joined = estimate.transpose(1, 3, 0, 2).reshape(stems, n, rows * together)
    if rows * together > channels:  # the last channel went in twice
        joined[..., channels - 1] = (joined[..., channels - 1] + joined[..., channels]) / 2
    return joined[..., :channels]


def _checked(block: np.ndarray) -> np.ndarray:
    block = np.asarray(block)
    # More channels than this are samples: some libraries return audio as [channels, samples].
    if block.ndim != 2 or block.dtype.kind != "f" or not 1 <= block.shape[1] <= _MOST_CHANNELS:
        raise ValueError(
            f"waveform: found {block.dtype} {list(block.shape)}, expected floats"
            f" [samples, channels] with full scale 1 and 1 to {_MOST_CHANNELS} channels"
        )
    return block.astype(np.float32, copy=False)


def _resampled(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
    """Resamples blocks [samples, channels]."""
    import soxr

    stream = None
    for block in blocks:
        block = np.ascontiguousarray(block, np.float32)
        if stream is None:
            stream = soxr.ResampleStream(from_rate, to_rate, block.shape[1], "float32", "VHQ")
        yield stream.resample_chunk(block)
    if stream is not None:
        yield stream.resample_chunk(block[:0], last=True)
