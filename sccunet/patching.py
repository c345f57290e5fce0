"""How a recording is cut into patches and joined again: arithmetic that needs no framework."""

import dataclasses

import numpy as np

from sccunet.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Patching:
    """How a recording of any length is cut into overlapping patches and joined again.

    Patch `i` starts `lead` samples before sample `i * step` of the recording; what lies outside of
    the recording is zero. Of each patch's estimate the `keep` samples behind the first `margin` are
    weighted by `window` and added to its neighbours'; these windows sum to one from sample 0 on.

    Attributes:
      margin: samples at a patch's start that some of their frames are missing for.
      keep: samples that every frame is there for; what follows them is dropped as well.
      fade: samples that neighbouring patches overlap by.
    """

    margin: int
    keep: int
    fade: int

    @classmethod
    def of(cls, model: ModelConfig, overlap: float = 0.25) -> "Patching":
        """The patching for a model.

        Args:
          model: gives patch_samples, frame_length and hop_length.
          overlap: part of `keep` that neighbouring patches share, 0 to 0.5.
        """
        keep = (model.frames - 1) * model.hop_length - model.frame_length
        fade = int(keep * overlap) // model.hop_length * model.hop_length
        return cls(margin=model.frame_length // 2, keep=keep, fade=fade)

    @property
    def step(self) -> int:
        """Samples from one patch to the next."""
        return self.keep - self.fade

    @property
    def lead(self) -> int:
        """Zeros in front of the recording: its first sample lies behind margin and fade-in."""
        return self.margin + self.fade

    def count(self, samples):
        """Number of patches that a recording of `samples` (int or integer tensor) takes."""
        return (samples + self.fade + self.step - 1) // self.step

    @property
    def window(self) -> np.ndarray:
        """float32 [keep]: rises over `fade`, is 1, falls over `fade`."""
        rise = np.sin(np.pi / 2 * (np.arange(self.fade) + 0.5) / max(self.fade, 1)) ** 2
        flat = np.ones(self.keep - 2 * self.fade)
        return np.concatenate([rise, flat, rise[::-1]]).astype(np.float32)
