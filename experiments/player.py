"""Separates songs and plays their stems in the browser, with a fader for each.

Examples:
  sccunet player
  sccunet player song.mp3
  sccunet player OUT/song/
  sccunet player --model=MODEL --port=8000 --nobrowser

The page is served on this machine alone, at an address with a random token, which is printed.
A folder is one of stems, as separate writes it: they are played as they are. Ctrl-C ends the
player; all files that it made go with it.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from sccunet.config import ConfigError


def main(files: Sequence[str]) -> None:
    """Checks what is given, then serves the page until Ctrl-C."""
    if len(files) > 1:
        raise ConfigError(f"FILE: found {len(files)}, expected one recording or folder of stems")
    given = Path(files[0]).absolute() if files else None
    if given and not given.exists():
        raise ConfigError(f"{given}: found no such file, expected a recording or a folder of stems")
    from experiments.playing import models, service

    offered = models.offered(_MODEL.value)
    service.serve(offered, given, _MAX_MB.value << 20, _HOST.value, _PORT.value, _BROWSER.value)


if __name__ == "__main__":
    _MODEL = flags.DEFINE_multi_string(
        "model",
        [],
        "A portable model, a training workdir or an exported SavedModel that the page offers, in"
        " front of those that ship with sccunet, or the name of one of these; may be given several"
        " times.",
    )
    _HOST = flags.DEFINE_string(
        "host",
        "127.0.0.1",
        "Address to serve at. Others than this machine's loopback device open the player to whoever"
        " knows its address, without encryption.",
    )
    _PORT = flags.DEFINE_integer("port", 0, "Port to serve at; 0: one that is free.", 0, 65_535)
    _MAX_MB = flags.DEFINE_integer("max_mb", 1024, "Most MiB of an uploaded file.", 1)
    _BROWSER = flags.DEFINE_bool("browser", True, "Open the page in the browser, if there is one.")
    cli.run(main, takes_files=True, needs=("starlette", "uvicorn"))
