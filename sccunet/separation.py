"""Separates whole recordings with a portable model, a training workdir or an exported SavedModel.

A portable model does so without TensorFlow and Keras.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from sccunet import devices, runs
from sccunet.ahead import in_order
from sccunet.config import PRECISIONS, Config, ConfigError
from sccunet.patching import Patching, channel_rows, cut
from sccunet.reconstruction import (
    PatchSeparator,
    Reconstruction,
    numpy_patch_separator,
    patch_separator,
)
from sccunet.runtime import RUNTIMES, OpenVinoNetwork, TensorFlowNetwork

_MOST_CHANNELS = 256
_BLOCK = 1 << 16  # samples that a whole recording is cut into


class Separator:
    """Separates recordings of any length by overlapping patches.

    Args:
      separate_patches: function that separates patches, as from `patch_separator`.
      config: config of the run that trained the network.
      parallel: number of calls of the function at the same time, each in a thread of its own.
      batch_size: the most patches in a call, of several places of the recording; but all channels
        of one place are in the same call.
    """

    def __init__(
        self,
        separate_patches: PatchSeparator,
        config: Config,
        parallel: int = 1,
        batch_size: int = 1,
    ):
        self.config = config
        self._separate_patches = separate_patches
        self._parallel = parallel
        self._batch_size = batch_size

    @classmethod
    def from_model(
        cls,
        unet,
        config: Config,
        reconstruction: Reconstruction | None = None,
        batch_size: int | None = None,
    ) -> "Separator":
        """Makes a separator from a model in memory, built by `sccunet.build_model` or any other.

        Args:
          unet: magnitudes [batch, bins, frames, channels] -> [batch, bins, frames,
            stems * channels]. A network from `build_model` is used with its current weights: later
            training has no effect.
          config: config of the run that trained it.
          reconstruction: how the estimates become stems; by default as in the paper.
          batch_size: the most patches, of all channels and several places, in a call of the
            network; by default `devices.patches_per_call`.
        """
        reconstruction = reconstruction or Reconstruction()
        batch_size = devices.patches_per_call() if batch_size is None else batch_size
        separate = patch_separator(unet, config.model, reconstruction, batch_size)
        # The Wiener filter is fitted to all channels of one place.
        places = 1 if reconstruction.mask == "wiener" else batch_size
        parallel = 2 if batch_size > 1 and devices.on_gpu() else 1  # cuts and joins meanwhile
        return cls(separate, config, parallel, places)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike | None = None,
        reconstruction: Reconstruction | None = None,
        precision: str = "float32",
        runtime: str = "auto",
        device: str | None = None,
        batch_size: int | None = None,
        gpu_memory_mb: int | None = None,
    ) -> "Separator":
        """Makes a separator from a portable model, a workdir's best weights or a SavedModel.

        Args:
          path: a portable model, a workdir, an export, or the base folder of several exports (the
            newest is used), or the name of a model that ships with the package, such as
            "free-2stems". By default `sccunet.runs.DEFAULT`.
          reconstruction: how the estimates become stems; by default as in the paper.
          precision: "mixed_bfloat16" computes the network's inner layers in bfloat16: faster on
            devices that support it, with rounding errors (results/benchmark). Workdirs only.
          runtime: what runs the network, one of `sccunet.runtime.RUNTIMES`. "openvino" needs a
            portable model; "auto" takes it for one, and "tensorflow" for others.
          device: what the network runs on. For OpenVINO "CPU", which is the default, "GPU", or one
            of several, such as "GPU.1"; for TensorFlow as in `devices.use`.
          batch_size: as in `from_model`; not for portable models, which take one patch in a call.
          gpu_memory_mb: as in `devices.use`; not for portable models.

        Raises:
          ConfigError: if `path` is none of these, has no weights yet, or cannot be loaded, or if
            the other choices do not fit it.
        """
        path, reconstruction = runs.model_path(path), reconstruction or Reconstruction()
        config = runs.load_config(path)
        kind = runs.kind_of(path)
        _check_choices(
            kind, path, precision, runtime,
            device=device, batch_size=batch_size, gpu_memory_mb=gpu_memory_mb,
        )  # fmt: skip
        if kind == runs.PORTABLE:
            if runtime == "tensorflow":
                network = TensorFlowNetwork(path, config.model)
            else:
                network = OpenVinoNetwork(path, config.model, device or "CPU")
            separate = numpy_patch_separator(network, config.model, reconstruction)
            return cls(separate, config, network.parallel)
        devices.use(device, gpu_memory_mb)
        if kind == runs.WORKDIR:
            unet = runs.load_unet(path, config, precision)
        else:
            unet = runs.load_saved_model(path, config)
        return cls.from_model(unet, config, reconstruction, batch_size)

    def __call__(
        self,
        waveform: np.ndarray,
        sample_rate: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, np.ndarray]:
        """Separates a whole recording.

        Args:
          waveform: [samples, channels], any length. A model of one channel separates each channel
            on its own. A model of two separates pairs of them; a channel without a partner goes in
            twice, and comes out as the mean of both.
          sample_rate: in Hz; audio at another rate than the model's is resampled there and back.
          progress: called with the samples that are done and those in all, whenever some are.

        Returns:
          Stem name -> float32 [samples, channels].

        Raises:
          ValueError: if `waveform` has another type or shape, or the rate is not over 0.
        """
        waveform = _checked(waveform)
        stems = {stem: np.empty(waveform.shape, np.float32) for stem in self.config.model.stems}
        done, starts = 0, range(0, len(waveform) or 1, _BLOCK)
        blocks = (waveform[start : start + _BLOCK] for start in starts)
        for block in self.stream(blocks, sample_rate):
            for stem, samples in block.items():
                stems[stem][done : done + len(samples)] = samples
            done += len(samples)
            if progress:
                progress(done, len(waveform))
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
          ValueError: if a block has another type or shape, or the rate is not over 0.
        """
        if not 0 < sample_rate < math.inf:  # soxr would never return
            raise ValueError(f"sample_rate: found {sample_rate}, expected a number of Hz over 0")
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
        model, patching = self.config.model, Patching.of(self.config.model)
        fade, step = patching.fade, patching.step
        window = patching.window[:, None]
        tail = np.float32(0)

        def separate(*places: tuple[np.ndarray, slice]) -> list[tuple[np.ndarray, slice]]:
            patches, owns = zip(*places, strict=True)
            channels = patches[0].shape[1]
            rows = channel_rows(channels, model.channels)
            # Of each place, [samples, channels] -> [rows, model.channels, samples].
            mixture = np.concatenate([np.ascontiguousarray(patch.T)[rows] for patch in patches])
            estimates = self._separate_patches(mixture)[..., patching.kept]
            estimates = estimates.reshape(len(places), len(rows), *estimates.shape[1:])
            # [stems, keep, channels] each
            return [
                (_joined(estimate, channels) * window, own)
                for estimate, own in zip(estimates, owns, strict=True)
            ]

        places = self._together(cut(blocks, model, patching))
        for separated in in_order(separate, places, self._parallel):
            for estimate, own in separated:
                estimate[:, :fade] += tail
                tail = estimate[:, step:]
                yield dict(zip(model.stems, estimate[:, :step][:, own], strict=True))

    def _together(
        self, patches: Iterator[tuple[np.ndarray, slice]]
    ) -> Iterator[list[tuple[np.ndarray, slice]]]:
        """Groups the patches of `cut`, of one place each, into those that go into one call."""
        for first in patches:
            rows = -(-first[0].shape[1] // self.config.model.channels)
            others = itertools.islice(patches, max(0, self._batch_size // rows - 1))
            yield [first, *others]


def _check_choices(
    kind: str, path: os.PathLike, precision: str, runtime: str, **others: str | int | None
) -> None:
    """Checks the arguments of `Separator.load` against the model, of a kind in `runs`."""
    portable = kind == runs.PORTABLE
    for field, found, possible in (
        ("precision", precision, PRECISIONS if kind == runs.WORKDIR else PRECISIONS[:1]),
        ("runtime", runtime, RUNTIMES if portable else ("auto", "tensorflow")),
    ):
        if found not in possible:
            raise ConfigError(
                f"{field}: found {found!r} for the {kind} {path}, expected {' or '.join(possible)}"
            )
    idle = {"batch_size": "its network takes one patch", "gpu_memory_mb": "it is for TensorFlow's"}
    if runtime == "tensorflow":
        idle["device"] = "LiteRT runs it on the CPU"
    for field, why in idle.items() if portable else ():
        if (found := others[field]) is not None:
            raise ConfigError(
                f"{field}: found {found!r} for the {kind} {path}, expected none: {why}"
            )


def _joined(estimate: np.ndarray, channels: int) -> np.ndarray:
    """[rows, stems, model.channels, n] of `channel_rows` -> [stems, n, channels]."""
    rows, stems, together, n = estimate.shape
    joined = estimate.transpose(1, 3, 0, 2).reshape(stems, n, rows * together)
    if rows * together > channels:  # the last channel went in twice
        joined = joined.copy()
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
