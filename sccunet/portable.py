"""Portable models: folders whose networks run without TensorFlow.

network.tflite  the network, as `sccunet.tflite` writes it: a patch's magnitudes in, each stem's out
config.json     the config of the run that trained it, as in its workdir
README.md       the model card

This module does not import TensorFlow until a model is written.
"""

from sccunet.runs import CONFIG as CONFIG
from sccunet.runs import NETWORK as NETWORK

CARD = "README.md"
