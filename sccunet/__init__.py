"""Spectrogram-Channels U-Net (Oh, Kim, Yun 2018, arXiv:1810.11520) for music source separation.

The names below are imported on first use, so that a program's `--help`, and whatever needs only the
configuration, does not load TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING

from sccunet import keras_settings

if TYPE_CHECKING:  # type checkers do not see what `__getattr__` imports
    from sccunet.config import AugmentConfig as AugmentConfig
    from sccunet.config import Config as Config
    from sccunet.config import ConfigError as ConfigError
    from sccunet.config import ModelConfig as ModelConfig
    from sccunet.losses import VolumeBalancedL1 as VolumeBalancedL1
    from sccunet.losses import balancing_weights as balancing_weights
    from sccunet.reconstruction import Reconstruction as Reconstruction
    from sccunet.separation import Separator as Separator
    from sccunet.unet import build_model as build_model

__version__ = "0.1.0"

_HOMES = {
    "Config": "config",
    "ModelConfig": "config",
    "AugmentConfig": "config",
    "ConfigError": "config",
    "Reconstruction": "reconstruction",
    "build_model": "unet",
    "VolumeBalancedL1": "losses",
    "balancing_weights": "losses",
    "Separator": "separation",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'sccunet' has no attribute {name!r}")
    if _HOMES[name] in ("unet", "losses"):  # others import Keras later, or never
        keras_settings.check()  # for one line in place of Keras's own errors
    return getattr(importlib.import_module(f"sccunet.{_HOMES[name]}"), name)
