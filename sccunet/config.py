"""Settings of a run, validated once: model, training and augmentation.

The defaults are the 4-stem set-up of the paper (Oh, Kim, Yun 2018, arXiv:1810.11520).
docs/fidelity.md lists the choices that the paper leaves open.
This module does not import TensorFlow, so that programs show their flags at once.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from sccunet.checks import ConfigError, check_value, checks_of, is_names, is_number, is_whole
from sccunet.checks import UserError as UserError

LOSS_BALANCES = ("volume", "equal")  # for Config
PRECISIONS = ("float32", "mixed_bfloat16")  # for Config and Separator
STRATEGIES = ("auto", "cpu", "gpu", "mirrored", "multiworker", "tpu")  # for sccunet.distribution

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
    """

    stems: tuple[str, ...] = ("vocals", "drums", "bass", "other")
    sample_rate: int = 44_100
    frame_length: int = 2048
    hop_length: int = 512
    patch_samples: int = 88_200
    filters: tuple[int, ...] = (32, 64, 128, 256, 512)
    dropout: float = 0.4

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

    @property
    def bins(self) -> int:
        """Frequency bins of a spectrogram."""
        return self.frame_length // 2 + 1

    @property
    def frames(self) -> int:
        """Frames of one patch's centred STFT."""
        return 1 + self.patch_samples // self.hop_length


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training crops; off by default, as in the paper.

    Attributes:
      gain_db: largest random change of each stem's level, up or down, in dB.
      channel_swap: swap left and right of each stem at random. Needs `downmix = False`.
      mix_tracks: probability that each stem of a crop comes from a different track and place.
    """

    gain_db: float = 0.0
    channel_swap: bool = False
    mix_tracks: float = 0.0

    def __post_init__(self):
        check = checks_of(self, "augment.")
        check("gain_db", is_number(self.gain_db, 0), "a number of dB, 0 or more")
        check("channel_swap", isinstance(self.channel_swap, bool), "True or False")
        is_chance = is_number(self.mix_tracks, 0) and self.mix_tracks <= 1
        check("mix_tracks", is_chance, "a probability between 0 and 1")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a training run; saved in its workdir as `config.json`.

    Attributes:
      model: the network and its spectrograms.
      augment: augmentation of training crops.
      sources: the files that make up a stem, unless it is a single file with the stem's name:
        `{"accompaniment": ("drums", "bass", "other")}` sums three files.
      seed: determines initial weights, crops, their order, augmentation and dropout.
      batch_size: patches per step, over all replicas of all workers. Steps, epochs and the learning
        rate's schedule therefore do not depend on the number of replicas.
      epochs: passes over the training split.
      steps_per_epoch: training steps per epoch; 0 takes as many crops as the training split has
        consecutive patches.
      validation_crops: largest number of validation crops, evenly spread; 0 takes all.
      random_crops: start crops anywhere; False takes consecutive patches.
      downmix: train on the mean of a file's channels; False takes one channel at random.
      learning_rate: Adam's initial learning rate.
      decay: "step" divides the learning rate by 10 after half of the epochs (paper: 1e-3 for 20,
        then 1e-4 for 20); "cosine" lowers it to 0 over all epochs.
      weight_decay: decoupled weight decay per step, multiplied by the learning rate.
      loss_weights: alpha of each stem, in the order of `model.stems`; if empty, `loss_balance`
        determines them.
      loss_balance: rule for loss weights if `loss_weights` is empty: "volume" computes them from
        the volumes of the training split (paper), "equal" gives every stem the same weight.
      precision: "float32" or "mixed_bfloat16".
      jit_compile: compile the training step with XLA.
      synchronized_norm: compute batch normalisation's statistics over the patches of all replicas;
        False computes them for each replica, which is faster.
    """

    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    sources: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    seed: int = 0
    batch_size: int = 8
    epochs: int = 40
    steps_per_epoch: int = 0
    validation_crops: int = 0
    random_crops: bool = True
    downmix: bool = True
    learning_rate: float = 1e-3
    decay: str = "step"
    weight_decay: float = 1e-6
    loss_weights: tuple[float, ...] = ()
    loss_balance: str = "volume"
    precision: str = "float32"
    jit_compile: bool = False
    synchronized_norm: bool = False

    def __post_init__(self):
        check = checks_of(self, "")
        self._check_sources()
        for field, least in (
            ("seed", 0),
            ("batch_size", 1),
            ("epochs", 1),
            ("steps_per_epoch", 0),
            ("validation_crops", 0),
        ):
            whole = is_whole(getattr(self, field), least)
            check(field, whole, f"a whole number, {least} or more")
        check("seed", self.seed < 2**32, "less than 2**32")
        for field in ("random_crops", "downmix", "jit_compile", "synchronized_norm"):
            check(field, isinstance(getattr(self, field), bool), "True or False")
        positive = is_number(self.learning_rate, 0) and self.learning_rate > 0
        check("learning_rate", positive, "a number over 0")
        check("decay", self.decay in ("step", "cosine"), "'step' or 'cosine'")
        check("weight_decay", is_number(self.weight_decay, 0), "a number, 0 or more")
        check_value(
            not (self.downmix and self.augment.channel_swap),
            "augment.channel_swap",
            True,
            "False, or downmix = False: the mean of two channels has no left and right",
        )
        weights, stems = self.loss_weights, self.model.stems
        numbers = isinstance(weights, list | tuple) and all(is_number(a, 0) for a in weights)
        fit = numbers and len(weights) == len(stems) and abs(sum(weights) - 1) < 0.005
        expected = f"nothing, or one weight for each of {stems}, with sum 1"
        check("loss_weights", fit or (numbers and not weights), expected)
        object.__setattr__(self, "loss_weights", tuple(float(alpha) for alpha in weights))
        check("loss_balance", self.loss_balance in LOSS_BALANCES, f"one of {LOSS_BALANCES}")
        check("precision", self.precision in PRECISIONS, "'float32' or 'mixed_bfloat16'")

    def _check_sources(self) -> None:
        sources = self.sources
        check_value(isinstance(sources, Mapping), "sources", sources, "a dict of stem to files")
        for stem, files in sources.items():
            check_value(stem in self.model.stems, "sources", stem, f"one of {self.model.stems}")
            expected = "a list of one or more file names without their ending"
            check_value(is_names(files), f"sources.{stem}", files, expected)
        object.__setattr__(self, "sources", {s: tuple(files) for s, files in sources.items()})
        names = [name for stem in self.model.stems for name in self.files_of(stem)]
        for name in names:
            expected = "each file in one stem only: the mixture is the sum of the stems"
            check_value(names.count(name) == 1, "sources", name, expected)

    def files_of(self, stem: str) -> tuple[str, ...]:
        """Names, without ending, of the files whose sum is `stem`."""
        return self.sources.get(stem, (stem,))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Reverses `to_dict`; also accepts the result of a config file's `get_config()`.

        Raises:
          ConfigError: if a field does not exist or has an invalid value.
        """
        values = _plain(values)
        for field, kind in (("model", ModelConfig), ("augment", AugmentConfig)):
            values[field] = _build(kind, values.get(field, {}), f"{field}.")
        return _build(cls, values, "")

    def to_dict(self) -> dict[str, Any]:
        """Returns nested plain values, for JSON and `ml_collections.ConfigDict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Reads what `to_json` wrote.

        Raises:
          ConfigError: if the text is not JSON, or as `from_dict`.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"config: found text that is not JSON ({error})") from error
        return cls.from_dict(values)

    def to_json(self) -> str:
        """Returns the config as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def model_config(config: Any) -> ModelConfig:
    """Returns the `ModelConfig` of a `Config`, a config file's `get_config()` or its `.model`."""
    if isinstance(config, ModelConfig):
        return config
    if isinstance(config, Config):
        return config.model
    values = _plain(config)
    return _build(ModelConfig, values.get("model", values), "model.")


def _plain(values: Any) -> dict[str, Any]:
    """Makes a dict of dicts from a Mapping or an ml_collections.ConfigDict."""
    if hasattr(values, "to_dict"):
        values = values.to_dict()
    check_value(isinstance(values, Mapping), "", values, "a dict of fields")
    return dict(values)


def _build(kind: type, values: Mapping[str, Any], prefix: str):
    if isinstance(values, kind):
        return values
    check_value(isinstance(values, Mapping), prefix, values, "a dict of fields")
    known = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            raise ConfigError(f"config.{prefix}{name}: unknown field, expected one of {known}")
    return kind(**values)
