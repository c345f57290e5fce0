"""A real song to try a model on; sodium.txt beside it states its source and licence."""

from pathlib import Path

SODIUM = Path(__file__).with_name("sodium.ogg")
