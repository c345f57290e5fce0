"""The atom of a .stem.mp4 that tells Traktor and other players about its stems.

The first audio stream of such a file is the mixture, which other players play; the stems follow.
MUSDB18 has this layout, too. FFmpeg's libraries do not write the atom. Source: Native Instruments,
Stem File Specification, and the files that stempeg writes.
"""

import itertools
import json
import os
import struct
from collections.abc import Sequence
from typing import BinaryIO

# The players' effects behind the sum of the stems, switched off.
_MASTERING = {
    "compressor": {
        "enabled": False,
        "ratio": 3,
        "output_gain": 0.5,
        "release": 0.3,
        "attack": 0.003,
        "input_gain": 0.5,
        "threshold": 0,
        "hp_cutoff": 300,
        "dry_wet": 50,
    },
    "limiter": {"enabled": False, "release": 0.05, "threshold": 0, "ceiling": -0.35},
}
_COLOURS = ("#009E73", "#D55E00", "#CC79A7", "#56B4E9")


def add_stem_atom(path: str | os.PathLike, names: Sequence[str]) -> None:
    """Adds the atom `moov.udta.stem` to an MP4 file whose last atom is `moov`.

    Args:
      path: the file.
      names: names of the stems, in the order of the audio streams behind the first.
    """
    stems = [
        {"name": name, "color": colour}
        for name, colour in zip(names, itertools.cycle(_COLOURS), strict=False)
    ]
    content = {"mastering_dsp": _MASTERING, "version": 1, "stems": stems}
    stem = _atom(b"stem", json.dumps(content).encode())
    with open(path, "r+b") as file:
        start = _position(file, b"moov")
        file.seek(start)
        atoms = _split(file.read()[8:])
        others = [atom for atom in atoms if atom[4:8] != b"udta"]
        tags = [atom[8:] for atom in atoms if atom[4:8] == b"udta"]
        udta = _atom(b"udta", b"".join([*tags, stem]))
        file.seek(start)
        file.write(_atom(b"moov", b"".join([*others, udta])))


def _atom(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def _position(file: BinaryIO, name: bytes) -> int:
    """Returns the position in bytes of an atom that is in no other."""
    at = 0
    while True:
        file.seek(at)
        size, found = struct.unpack(">I4s", file.read(8))
        if found == name:
            return at
        at += size if size != 1 else struct.unpack(">Q", file.read(8))[0]


def _split(atoms: bytes) -> list[bytes]:
    """Returns each of several atoms."""
    found = []
    while atoms:
        size = int.from_bytes(atoms[:4], "big")
        found.append(atoms[:size])
        atoms = atoms[size:]
    return found
