"""Every message of the configuration, its round trips, and the config files."""

import dataclasses
import importlib
import math
import subprocess
import sys
from pathlib import Path

import ml_collections
import pytest

from experiments import configs
from sccunet.checks import counted
from sccunet.config import (
    AugmentConfig,
    Config,
    ConfigError,
    ModelConfig,
    model_config,
)

# Field, an invalid value, and a part of the expectation in the message.
_BAD = [
    ("model.stems", "vocals", "a list"),
    ("model.stems", (), "one or more different names"),
    ("model.stems", ("vocals", ""), "one or more different names"),
    ("model.stems", ("vocals", 3), "one or more different names"),
    ("model.stems", ("vocals", "vocals"), "one or more different names"),
    ("model.stems", ("a", "b/c"), "a valid file name"),
    ("model.stems", ("a", "b\\c"), "a valid file name"),
    ("model.stems", ("a", ".."), "a valid file name"),
    ("model.stems", ("a", "mixture"), "other than 'mixture'"),
    ("model.sample_rate", 0, "a whole number of Hz over 0"),
    ("model.sample_rate", 44_100.0, "a whole number of Hz over 0"),
    ("model.frame_length", 2047, "an even number of samples"),
    ("model.frame_length", 2, "4 or more"),
    ("model.frame_length", True, "an even number of samples"),
    ("model.hop_length", 0, "a divisor of model.frame_length = 2048"),
    ("model.hop_length", 500, "a divisor of model.frame_length = 2048"),
    ("model.hop_length", 1024, "at most a quarter of model.frame_length = 2048"),
    ("model.patch_samples", 8191, "at least 4 frames = 8192 samples"),
    ("model.patch_samples", 88_200.0, "at least 4 frames = 8192 samples"),
    ("model.filters", 32, "a list"),
    ("model.filters", (32,), "two or more whole numbers over 0"),
    ("model.filters", (32, 0), "two or more whole numbers over 0"),
    ("model.filters", (32, 6.4), "two or more whole numbers over 0"),
    ("model.dropout", -0.1, "0 <= dropout < 1"),
    ("model.dropout", 1, "0 <= dropout < 1"),
    ("model.dropout", "0.4", "0 <= dropout < 1"),
    ("model.channels", 3, "1 or 2"),
    ("model.channels", 2, "downmix = False"),
    ("model.input_power", 2.0, "1.0 or 0.5"),
    ("model.output", "waveform", "one of ('magnitude', 'mask')"),
    ("augment.silent_share", 1.5, "a share between 0 and 1"),
    ("augment.silent_share", 0.5, "mix_tracks over 0"),
    ("augment.speed", 1.0, "0 <= speed < 1"),
    ("augment.tilt_db", -1, "a number of dB per octave, 0 or more"),
    ("augment.equalizer_db", -1, "a number of dB, 0 or more"),
    ("augment.balance_db", (3.0,), "two rising numbers of dB"),
    ("augment.balance_db", (3.0, 3.0), "two rising numbers of dB"),
    ("augment.balance_db", (-9.0, 8.0), "mix_tracks over 0"),
    ("augment.duet", 1.5, "a probability"),
    ("augment.duet", 0.5, "mix_tracks over 0"),
    ("augment.stem_dropout", (0.5, 2), "a list of probabilities between 0 and 1"),
    ("augment.stem_dropout", (0.5,), "one probability for each of"),
    ("data_weights", (1.0, 0.0), "one number over 0 for each data directory"),
    ("warmup_steps", 10, "0, or decay = 'cosine'"),
    ("clip_norm", -1, "a number, 0 or more"),
    ("accumulation_steps", 0, "a whole number, 1 or more"),
    ("ema_momentum", 1.0, "0 <= ema_momentum < 1"),
    ("patience", -1, "a whole number, 0 or more"),
    ("steps_per_execution", 0, "a whole number, 1 or more"),
    ("check_steps", 0, "a whole number, 1 or more"),
    ("best_by", "sir", "'loss' or 'sdr'"),
    ("loss", "l2", "one of ('magnitude', 'complex')"),
    ("augment.gain_db", -1.0, "a number of dB, 0 or more"),
    ("augment.gain_db", math.inf, "a number of dB, 0 or more"),
    ("augment.channel_swap", 1, "True or False"),
    ("augment.channel_swap", True, "downmix = False"),
    ("augment.mix_tracks", 1.1, "a probability between 0 and 1"),
    ("augment.mix_tracks", -0.1, "a probability between 0 and 1"),
    ("sources", ("drums",), "a dict of stem to files"),
    ("sources", {"piano": ("keys",)}, "one of ('vocals', 'drums', 'bass', 'other')"),
    ("seed", -1, "a whole number, 0 or more"),
    ("batch_size", 0, "a whole number, 1 or more"),
    ("batch_size", 1.5, "a whole number, 1 or more"),
    ("epochs", 0, "a whole number, 1 or more"),
    ("steps_per_epoch", -1, "a whole number, 0 or more"),
    ("validation_crops", -1, "a whole number, 0 or more"),
    ("random_crops", 1, "True or False"),
    ("downmix", None, "True or False"),
    ("jit_compile", "auto", "True or False"),
    ("synchronized_norm", 1, "True or False"),
    ("learning_rate", 0, "a number over 0"),
    ("learning_rate", math.nan, "a number over 0"),
    ("decay", "linear", "'step', 'cosine' or 'late'"),
    ("weight_decay", -1e-6, "a number, 0 or more"),
    ("loss_weights", (0.5, 0.5), "one weight for each of"),
    ("loss_weights", (0.5, 0.5, 0.5, 0.5), "with sum 1"),
    ("loss_weights", (1.5, -0.5, 0.0, 0.0), "one weight for each of"),
    ("loss_weights", 1.0, "one weight for each of"),
    ("loss_balance", "loudness", "one of ('volume', 'equal'"),
    ("precision", "float16", "'float32' or 'mixed_bfloat16'"),
    ("model", 3, "a dict of fields"),
    ("augment", None, "a dict of fields"),
]


def _override(field, value):
    """Returns a whole config as a dict, with one changed field."""
    values = Config().to_dict()
    *parents, last = field.split(".")
    inner = values
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return values


@pytest.mark.parametrize(("field", "value", "expected"), _BAD)
def test_message_names_field_found_and_expected(field, value, expected):
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(_override(field, value))
    message = str(caught.value)
    assert message.startswith(f"config.{field}: found ")
    found, _, wanted = message.partition(", expected ")
    assert expected in wanted
    # Only the bad name of a list is reported.
    bad = value if repr(value) in found else list(value)[-1]
    assert repr(bad) in found
    assert "\n" not in message


@pytest.mark.parametrize("files", [(), "drums", (3,), ("drums", "")])
def test_sources_of_a_stem_are_file_names(files):
    with pytest.raises(ConfigError, match=r"^config\.sources\.other: found .*expected a list of"):
        Config.from_dict(_override("sources", {"other": files}))


def test_file_of_two_stems():
    with pytest.raises(
        ConfigError, match=r"^config\.sources: found 'drums', expected each file in"
    ):
        Config.from_dict(_override("sources", {"other": ("drums", "keys")}))


@pytest.mark.parametrize(
    ("kind", "prefix"), [(Config, ""), (ModelConfig, "model."), (AugmentConfig, "augment.")]
)
def test_every_field_is_checked(kind, prefix):
    """New fields, too: no field can be None."""
    for field in dataclasses.fields(kind):
        with pytest.raises(ConfigError, match=rf"^config\.{prefix}{field.name}: found None, expec"):
            Config.from_dict(_override(f"{prefix}{field.name}", None))


@pytest.mark.parametrize("prefix", ["", "model.", "augment."])
def test_unknown_field(prefix):
    with pytest.raises(ConfigError, match=rf"^config\.{prefix}typo: unknown field, expected one"):
        Config.from_dict(_override(f"{prefix}typo", 1))


@pytest.mark.parametrize("values", [3, None, ["model"]])
def test_from_dict_of_something_else(values):
    with pytest.raises(ConfigError, match=r"^config: found .*expected a dict of fields"):
        Config.from_dict(values)


def _unusual():
    """Every field differs from its default."""
    return Config(
        model=ModelConfig(
            stems=("voice", "rest"),
            sample_rate=16_000,
            frame_length=256,
            hop_length=64,
            patch_samples=4096,
            filters=(3, 5, 7),
            dropout=0.1,
            channels=2,
            input_power=0.5,
            output="mask",
        ),
        augment=AugmentConfig(3.0, True, 0.25, 0.5, 0.1, 2.0, (0.25, 0.5), 4.0, (-9.0, 8.0), 0.5),
        sources={"rest": ("drums", "bass")},
        data_weights=(1.0, 2.0),
        seed=5,
        batch_size=3,
        epochs=7,
        steps_per_epoch=11,
        validation_crops=13,
        random_crops=False,
        downmix=False,
        learning_rate=0.02,
        decay="cosine",
        warmup_steps=5,
        weight_decay=0.0,
        clip_norm=1.0,
        accumulation_steps=2,
        ema_momentum=0.99,
        patience=3,
        best_by="sdr",
        loss="complex",
        loss_weights=(0.25, 0.75),
        loss_balance="equal",
        precision="mixed_bfloat16",
        jit_compile=True,
        steps_per_execution=10,
        check_steps=50,
        synchronized_norm=True,
    )


def test_unusual_config_has_no_default_left():
    config = _unusual()
    parts = ((Config, config), (ModelConfig, config.model), (AugmentConfig, config.augment))
    for kind, values in parts:
        for field in dataclasses.fields(kind):
            assert getattr(values, field.name) != getattr(kind(), field.name), field.name


@pytest.mark.parametrize("config", [Config(), _unusual()], ids=["defaults", "unusual"])
def test_round_trips(config):
    assert Config.from_json(config.to_json()) == config
    assert Config.from_dict(config.to_dict()) == config
    assert Config.from_dict(ml_collections.ConfigDict(config.to_dict())) == config
    named = {"model": config.model, "downmix": config.downmix}
    assert Config.from_dict(named).model is config.model


def test_masks_need_several_stems():
    with pytest.raises(
        ConfigError, match=r"model\.output: found 'mask', expected 'magnitude' with"
    ):
        ModelConfig(stems=("a",), output="mask")


def test_missing_fields_have_the_papers_values():
    assert Config.from_dict({}) == Config()
    assert Config.from_dict({"model": {"dropout": 0.0}}).model == ModelConfig(dropout=0.0)


def test_from_json_of_other_text():
    with pytest.raises(ConfigError, match=r"^config: found text that is not JSON"):
        Config.from_json('{"model": ')


def test_model_config_of_each_kind():
    config = _unusual()
    as_dict = ml_collections.ConfigDict(config.to_dict())
    for given in (config, config.model, config.to_dict(), as_dict, as_dict.model):
        assert model_config(given) == config.model
    with pytest.raises(ConfigError, match=r"^config\.model\.typo: unknown field"):
        model_config({"typo": 1})


def test_bins_and_frames():
    assert (ModelConfig().bins, ModelConfig().frames) == (1025, 173)
    assert (_unusual().model.bins, _unusual().model.frames) == (129, 65)


def test_files_of_a_stem():
    assert _unusual().files_of("voice") == ("voice",)
    assert _unusual().files_of("rest") == ("drums", "bass")


def _values(name):
    return importlib.import_module(f"experiments.configs.{name}").get_config()


@pytest.mark.parametrize("name", configs.names())
def test_config_file_is_valid_and_says_how_it_went(name):
    values = _values(name)
    config = Config.from_dict(values)
    assert Config.from_json(config.to_json()) == config
    # Files do not share mutable values: an override of one leaves the next as it was.
    values.model.dropout = 0.123
    assert _values(name).model.dropout != 0.123


def test_paper_4stems_has_the_papers_numbers_which_are_the_defaults():
    values = _values("paper_4stems").to_dict()
    assert Config.from_dict(values) == Config()
    model = values.pop("model")
    assert model == {
        "stems": ("vocals", "drums", "bass", "other"),
        "sample_rate": 44_100,
        "frame_length": 2048,
        "hop_length": 512,
        "patch_samples": 2 * 44_100,
        "filters": (32, 64, 128, 256, 512),
        "dropout": 0.4,
        "channels": 1,
        "input_power": 1.0,
        "output": "magnitude",
    }
    augment = values.pop("augment")
    assert augment.pop("silent_share") == 1  # crops are taken as they come
    assert not any(augment.values())  # all off
    assert values == {
        "sources": {},
        "data_weights": (),
        "seed": 0,
        "batch_size": 8,
        "epochs": 40,
        "steps_per_epoch": 0,
        "validation_crops": 0,
        "random_crops": True,
        "downmix": True,
        "learning_rate": 1e-3,
        "decay": "step",
        "warmup_steps": 0,
        "weight_decay": 1e-6,
        "clip_norm": 0.0,
        "accumulation_steps": 1,
        "ema_momentum": 0.0,
        "patience": 0,
        "best_by": "loss",
        "loss": "magnitude",
        "loss_weights": (),
        "loss_balance": "volume",
        "precision": "float32",
        "jit_compile": False,
        "steps_per_execution": 1,
        "check_steps": 20,
        "synchronized_norm": False,
    }


@pytest.mark.parametrize("size", ["paper", "small", "medium"])
def test_2stems_differs_from_4stems_only_in_its_stems(size):
    four, two = (_values(f"{size}_{n}stems").to_dict() for n in (4, 2))
    assert two["model"].pop("stems") == ("vocals", "accompaniment")
    assert two.pop("sources") == {"accompaniment": ("drums", "bass", "other")}
    assert four["model"].pop("stems") == ("vocals", "drums", "bass", "other")
    assert four.pop("sources") == {}
    assert two == four


def test_configuration_needs_no_tensorflow():
    code = """
import sys
import sccunet, sccunet.runs, experiments.configs.paper_4stems, experiments.configs.small_2stems
sccunet.Config(), sccunet.ModelConfig(), sccunet.runs.load_config
print([name for name in ("tensorflow", "keras", "torch", "jax") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(configs.__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"


def test_package_has_exactly_its_public_names():
    import sccunet

    assert sccunet.Config is Config
    assert callable(sccunet.build_model)
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = sccunet.missing


def test_counts_have_singulars():
    assert [counted(n, "track") for n in (0, 1, 2)] == ["0 tracks", "1 track", "2 tracks"]
