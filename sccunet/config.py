"""Settings of a run, validated once: model, training and augmentation.

The defaults are the 4-stem set-up of the paper (Oh, Kim, Yun 2018, arXiv:1810.11520).
docs/fidelity.md lists the choices that the paper leaves open.
This module does not import TensorFlow, so that programs show their flags at once.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from sccunet.augment_config import AugmentConfig as AugmentConfig
from sccunet.checks import (
    ConfigError,
    check_value,
    checks_of,
    is_names,
    is_number,
    is_numbers,
    is_whole,
)
from sccunet.checks import UserError as UserError
from sccunet.model_config import ModelConfig as ModelConfig

LOSSES = ("magnitude", "complex")  # for Config
LOSS_BALANCES = ("volume", "equal")  # for Config
PRECISIONS = ("float32", "mixed_bfloat16")  # for Config and Separator
STRATEGIES = ("auto", "cpu", "gpu", "mirrored", "multiworker", "tpu")  # for sccunet.distribution


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a training run; saved in its workdir as `config.json`.

    Attributes:
      model: the network and its spectrograms.
      augment: augmentation of training crops.
      sources: the files that make up a stem, unless it is a single file with the stem's name:
        `{"accompaniment": ("drums", "bass", "other")}` sums three files.
      data_weights: share of the training crops from each data directory, in the order of
        --data_dir; only their ratios matter. They hold for each mixed stem, among the directories
        that have it. If empty, every patch of all directories is equally likely.
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
        then 1e-4 for 20); "cosine" lowers it to 0 over all epochs; "late" keeps it for two fifths
        of the epochs, then lowers it to 0 steadily.
      warmup_steps: steps in which the learning rate rises from 0, before the cosine begins.
      weight_decay: decoupled weight decay per update, multiplied by the learning rate.
      clip_norm: largest global 2-norm of an update's gradients; longer ones are scaled down. 0 does
        not limit it.
      accumulation_steps: steps, each a batch, whose gradients are averaged for one update of the
        weights.
      ema_momentum: momentum of the exponential moving average of weights and batch normalisation's
        statistics over the updates. The averaged network is validated and saved as the best; 0
        takes the network as it is.
      patience: epochs without a better validation after which the run ends early; 0 never does.
      best_by: what makes a validation the best: the lowest "loss", or the highest "sdr", the mean
        of the stems' SDRs.
      loss: "magnitude" is the L1 distance of magnitudes (paper); "complex" is the squared error of
        the complex spectrograms over the mixture's energy, the estimate having the mixture's phase.
      loss_weights: alpha of each stem, in the order of `model.stems`; if empty, `loss_balance`
        determines them.
      loss_balance: rule for loss weights if `loss_weights` is empty: "volume" computes them from
        the volumes of the training split (paper), "equal" gives every stem the same weight. With
        two stems, masks and the complex loss it has no effect: the errors of both are the same.
      precision: "float32" or "mixed_bfloat16".
      jit_compile: compile the training step with XLA.
      steps_per_execution: steps that the device makes on its own, one after the other; a divisor of
        the steps per epoch.
      check_steps: steps after which the host looks whether loss and gradients are finite, and shows
        the loss; in between it does not wait for the device.
      synchronized_norm: compute batch normalisation's statistics over the patches of all replicas;
        False computes them for each replica, which is faster.
    """

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    sources: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    data_weights: tuple[float, ...] = ()
    seed: int = 0
    batch_size: int = 8
    epochs: int = 40
    steps_per_epoch: int = 0
    validation_crops: int = 0
    random_crops: bool = True
    downmix: bool = True
    learning_rate: float = 1e-3
    decay: str = "step"
    warmup_steps: int = 0
    weight_decay: float = 1e-6
    clip_norm: float = 0.0
    accumulation_steps: int = 1
    ema_momentum: float = 0.0
    patience: int = 0
    best_by: str = "loss"
    loss: str = "magnitude"
    loss_weights: tuple[float, ...] = ()
    loss_balance: str = "volume"
    precision: str = "float32"
    jit_compile: bool = False
    steps_per_execution: int = 1
    check_steps: int = 20
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
            ("warmup_steps", 0),
            ("accumulation_steps", 1),
            ("patience", 0),
            ("steps_per_execution", 1),
            ("check_steps", 1),
        ):
            whole = is_whole(getattr(self, field), least)
            check(field, whole, f"a whole number, {least} or more")
        check("seed", self.seed < 2**32, "less than 2**32")
        for field in ("random_crops", "downmix", "jit_compile", "synchronized_norm"):
            check(field, isinstance(getattr(self, field), bool), "True or False")
        positive = is_number(self.learning_rate, 0) and self.learning_rate > 0
        check("learning_rate", positive, "a number over 0")
        check("decay", self.decay in ("step", "cosine", "late"), "'step', 'cosine' or 'late'")
        falls = self.decay == "cosine" or not self.warmup_steps
        check("warmup_steps", falls, "0, or decay = 'cosine'")
        check("weight_decay", is_number(self.weight_decay, 0), "a number, 0 or more")
        check("clip_norm", is_number(self.clip_norm, 0), "a number, 0 or more")
        check("ema_momentum", is_number(self.ema_momentum, 0, 1), "0 <= ema_momentum < 1")
        check("best_by", self.best_by in ("loss", "sdr"), "'loss' or 'sdr'")
        self._check_channels()
        self._check_lists()
        check("loss", self.loss in LOSSES, f"one of {LOSSES}")
        check("loss_balance", self.loss_balance in LOSS_BALANCES, f"one of {LOSS_BALANCES}")
        check("precision", self.precision in PRECISIONS, "'float32' or 'mixed_bfloat16'")

    def _check_channels(self) -> None:
        for field, given in (
            ("augment.channel_swap", self.augment.channel_swap),
            ("model.channels", self.model.channels > 1 and self.model.channels),
        ):
            expected = "downmix = False beside it: the mean of two channels has no left and right"
            check_value(not (self.downmix and given), field, given, expected)

    def _check_lists(self) -> None:
        """Checks lists with one number for each stem or data directory; makes them tuples."""
        check, stems = checks_of(self, ""), self.model.stems
        weights = self.loss_weights
        fit = is_numbers(weights) and len(weights) == len(stems) and abs(sum(weights) - 1) < 0.005
        expected = f"nothing, or one weight for each of {stems}, with sum 1"
        check("loss_weights", fit or (is_numbers(weights) and not weights), expected)
        object.__setattr__(self, "loss_weights", tuple(float(alpha) for alpha in weights))
        shares = self.data_weights
        fit = is_numbers(shares) and all(share > 0 for share in shares)
        check("data_weights", fit, "nothing, or one number over 0 for each data directory")
        object.__setattr__(self, "data_weights", tuple(float(share) for share in shares))
        chances = self.augment.stem_dropout
        fit = len(chances) in (0, len(stems))
        expected = f"nothing, or one probability for each of {stems}"
        check_value(fit, "augment.stem_dropout", chances, expected)

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
