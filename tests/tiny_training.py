"""Tiny trainings for the tests of train: levels of the tracks' stems, config and run."""

import importlib

import numpy as np
import soundfile
from kill_training import CHANGES

from data_pipeline.wav import read_wav
from experiments.training import run
from experiments.training.options import TrainOptions
from sccunet.config import Config

LEVELS = {"vocals": 0.2, "drums": 0.1, "bass": 0.05, "other": 0.025}


def config_of(name="small_4stems", **changes):
    """Returns the config of `kill_training.flags` with changes; nested: `model__filters`."""
    values = importlib.import_module(f"experiments.configs.{name}").get_config()
    changes = {field.replace("__", "."): value for field, value in changes.items()}
    values.update_from_flattened_dict({**CHANGES, **changes})
    return Config.from_dict(values)


def train(data_dir, workdir, config=None, **options):
    """Trains in this process; the options are those of `TrainOptions`."""
    run.train(config or config_of(), TrainOptions(data_dir, workdir, **options))


def rewrite(path, rate=44_100, keep=None, encoding="pcm16", nan_at=None):
    """Writes a WAV again: at another rate, cut, in another encoding, or with a NaN."""
    samples = read_wav(path)[:keep]
    if nan_at is not None:
        samples[nan_at] = np.nan
    subtype = {"pcm16": "PCM_16", "float32": "FLOAT"}[encoding]
    soundfile.write(path, samples, rate, subtype=subtype)
