"""Settings of a model, validated once: all that separation and serving need to know.

This module does not import TensorFlow.
"""

import dataclasses

from sccunet.checks import check_value, checks_of, is_names, is_number, is_whole

OUTPUTS = ("magnitude", "mask")

# One centred frame must fit on both sides of a patch: reflection needs more than half a frame.
_MIN_PATCH_FRAMES = 4


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Settings of a model: everything that separation and serving need to know.

    Attributes:
      stems: names of the separated sources, in the order of the network's output channels.
      sample_rate: sample rate of the network's audio, in Hz.
      frame_length: length of STFT window and FFT, in samples (paper: 2048).
      hop_length: distance between STFT frames, in samples (paper: 512).
      patch_samples: length of one patch, in samples (paper: 2 s = 88 200).
      filters: number of channels at each encoder level from the top, then at the bottom.
      dropout: dropout rate after each up-convolution of the decoder.
      channels: channels that the network reads and writes together: 1 separates each channel of a
        recording on its own (paper), 2 separates left and right together.
      input_power: power of the magnitudes that the first layer reads: 1.0 (paper) or 0.5.
      output: "magnitude" estimates each stem's magnitudes directly (paper); "mask" estimates each
        stem's share of the mixture's magnitudes; the shares sum to 1.
    """

    stems: tuple[str, ...] = ("vocals", "drums", "bass", "other")
    sample_rate: int = 44_100
    frame_length: int = 2048
    hop_length: int = 512
    patch_samples: int = 88_200
    filters: tuple[int, ...] = (32, 64, 128, 256, 512)
    dropout: float = 0.4
    channels: int = 1
    input_power: float = 1.0
    output: str = "magnitude"

    def __post_init__(self):
        check = checks_of(self, "model.")
        for field in ("stems", "filters"):
            check(field, isinstance(getattr(self, field), list | tuple), "a list")
            object.__setattr__(self, field, tuple(getattr(self, field)))
        different = is_names(self.stems) and len(set(self.stems)) == len(self.stems)
        check("stems", different, "one or more different names")
        for name in self.stems:
            is_file = "/" not in name and "\\" not in name and name not in ("mixture", ".", "..")
            check_value(is_file, "model.stems", name, "a valid file name other than 'mixture'")
        check("sample_rate", is_whole(self.sample_rate, 1), "a whole number of Hz over 0")
        even = is_whole(self.frame_length, 4) and self.frame_length % 2 == 0
        check("frame_length", even, "an even number of samples, 4 or more")
        length, hop = f"model.frame_length = {self.frame_length}", self.hop_length
        divides = is_whole(hop, 1) and self.frame_length % hop == 0
        check("hop_length", divides, f"a divisor of {length}")
        invertible = f"at most a quarter of {length}, so that the Hann window can be inverted"
        check("hop_length", self.frame_length // hop >= 4, invertible)
        least = _MIN_PATCH_FRAMES * self.frame_length
        long_enough = f"at least {_MIN_PATCH_FRAMES} frames = {least} samples"
        check("patch_samples", is_whole(self.patch_samples, least), long_enough)
        check(
            "filters",
            len(self.filters) >= 2 and all(is_whole(n, 1) for n in self.filters),
            "two or more whole numbers over 0 (each encoder level, then the bottom)",
        )
        check("dropout", is_number(self.dropout, 0, 1), "0 <= dropout < 1")
        check("channels", is_whole(self.channels, 1) and self.channels <= 2, "1 or 2")
        check("input_power", self.input_power in (1.0, 0.5), "1.0 or 0.5")
        check("output", self.output in OUTPUTS, f"one of {OUTPUTS}")
        shares = self.output != "mask" or len(self.stems) > 1
        check("output", shares, "'magnitude' with one stem: the masks of several share the mixture")

    @property
    def bins(self) -> int:
        """Frequency bins of a spectrogram."""
        return self.frame_length // 2 + 1

    @property
    def frames(self) -> int:
        """Frames of one patch's centred STFT."""
        return 1 + self.patch_samples // self.hop_length

    @property
    def magnitudes_shape(self) -> tuple[int, ...]:
        """Shape of a patch's magnitudes in exports: [bins, frames], of two channels [.., 2]."""
        return (self.bins, self.frames, self.channels)[: 2 if self.channels == 1 else 3]

    @property
    def parameters(self) -> int:
        """Trained parameters of the network that `sccunet.build_model` builds."""

        def layer(size: int, inputs: int, outputs: int) -> int:
            return size * inputs * outputs + 3 * outputs  # kernel; bias, scale and shift

        count, before = 0, self.channels
        for filters in self.filters:  # the last is the bottom
            count += layer(9, before, filters) + layer(9, filters, filters)
            before = filters
        for filters in reversed(self.filters[:-1]):
            count += layer(25, before, filters) + layer(9, 2 * filters, filters)
            count += layer(9, filters, filters)
            before = filters
        return count + (before + 1) * len(self.stems) * self.channels
