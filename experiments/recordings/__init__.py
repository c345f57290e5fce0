"""A real song to try a model on, with its stems; sodium.txt states their source and licence."""

from pathlib import Path

SODIUM = Path(__file__).with_name("sodium.ogg")
# Stem -> file.
SODIUM_STEMS = {
    stem: SODIUM.with_name(f"sodium_{stem}.ogg") for stem in ("vocals", "accompaniment")
}
