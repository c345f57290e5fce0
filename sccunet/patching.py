"""Arithmetic of cutting a recording into patches and joining them again; needs no framework."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from sccunet.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Patching:
    """How a recording of any length is cut into overlapping patches and joined again.

    Patch `i` starts `lead` samples before sample `i * step` of the recording, which is padded with
    zeros. In each patch's estimate the first `margin` samples are dropped; the next `keep` samples
    are weighted by `window` and added to those of neighbouring patches. The windows sum to one from
    sample 0 on.

    Attributes:
      margin: samples at the start of a patch that lack some of the frames covering them.
      keep: samples after the margin that have all of their frames; the rest is dropped too.
      fade: samples by which neighbouring patches overlap.
    """

    margin: int
    keep: int
    fade: int

    @classmethod
    def of(cls, model: ModelConfig, overlap: float = 0.25) -> "Patching":
        """Returns the patching for a model.

        Args:
          model: gives patch_samples, frame_length and hop_length.
          overlap: fraction of `keep` that neighbouring patches share, 0 to 0.5.
        """
        keep = (model.frames - 1) * model.hop_length - model.frame_length
        fade = int(keep * overlap) // model.hop_length * model.hop_length
        return cls(margin=model.frame_length // 2, keep=keep, fade=fade)

    @property
    def kept(self) -> slice:
        """The samples of a patch's estimate that are not dropped."""
        return slice(self.margin, self.margin + self.keep)

    @property
    def step(self) -> int:
        """Samples from one patch to the next."""
        return self.keep - self.fade

    @property
    def lead(self) -> int:
        """Zeros before the recording: its first sample follows the margin and the fade-in."""
        return self.margin + self.fade

    def count(self, samples):
        """Number of patches in a recording of `samples` (int or integer tensor)."""
        return (samples + self.fade + self.step - 1) // self.step

    @property
    def window(self) -> np.ndarray:
        """Weights, float32 [keep]: rising over `fade`, then 1, then falling over `fade`."""
        rise = np.sin(np.pi / 2 * (np.arange(self.fade) + 0.5) / max(self.fade, 1)) ** 2
        flat = np.ones(self.keep - 2 * self.fade)
        return np.concatenate([rise, flat, rise[::-1]]).astype(np.float32)


def cut(
    blocks: Iterable[np.ndarray], model: ModelConfig, patching: Patching
) -> Iterator[tuple[np.ndarray, slice]]:
    """Cuts a recording, given in blocks, into patches; each comes as soon as its samples are there.

    Args:
      blocks: float32 [samples, channels] each, of any length, all with the same channels.
      model: gives patch_samples.
      patching: of the model.

    Yields:
      A patch [patch_samples, channels], and which samples of its step are the recording's.
    """
    pieces, waiting = [], 0  # samples in the pieces
    samples, given = 0, -patching.fade  # the first patch fades in before the recording starts

    def step() -> slice:
        nonlocal given
        own = slice(max(0, -given), min(patching.step, samples - given))
        given += patching.step
        return own

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
                yield pending[: model.patch_samples], step()
                pending = pending[patching.step :]
            pieces, waiting = [pending], len(pending)
    while pieces and given < samples:
        pending = np.concatenate(pieces)[: model.patch_samples]
        missing = model.patch_samples - len(pending)
        yield np.pad(pending, ((0, missing), (0, 0))), step()
        pieces = [pending[patching.step :]]


def channel_rows(channels: int, together: int) -> np.ndarray:
    """Lists the channels of a recording that the network reads together.

    With two together, channels go in pairs, and a channel without a partner goes in twice.

    Args:
      channels: number of channels of the recording.
      together: `ModelConfig.channels`.

    Returns:
      Indices of channels, int [rows, together].
    """
    rows = -(-channels // together)
    return np.minimum(np.arange(rows * together), channels - 1).reshape(rows, together)
