"""Which code reads crops of WAV files inside a tf.data graph: ONE list of readers, by name.

Memory maps are the default: several times faster (results/benchmark), and they load with every
TensorFlow; their only Python is one call per batch, whose NumPy loops let other threads run.
tensorflow-io stays in the graph without Python. A reader reads only the crop's bytes.

To add a reader, write a module beside `mmap_reader`, and name it here.
"""

import re
from typing import TYPE_CHECKING

from sccunet.config import ConfigError

if TYPE_CHECKING:  # so that programs can show the readers' names at once
    import tensorflow as tf

    from data_pipeline.mmap_reader import MakeReader
    from data_pipeline.wav import AudioError

READERS = ("mmap", "tfio")


def reader_named(name: str) -> "MakeReader":
    """The function that makes a reader of files.

    Args:
      name: one of `READERS`.

    Raises:
      ConfigError: for another name, or if what the reader needs is not installed.
    """
    if name == "mmap":
        from data_pipeline.mmap_reader import mmap_reader

        return mmap_reader
    if name == "tfio":
        from data_pipeline import tfio_reader

        tfio_reader.check_available()
        return tfio_reader.tfio_reader
    raise ConfigError(f"--reader: found {name!r}, expected one of {', '.join(READERS)}")


def error_of(error: "tf.errors.OpError") -> "AudioError | None":
    """The reader's AudioError that TensorFlow has wrapped in its own; None if there is none."""
    from data_pipeline.wav import AudioError

    found = re.search(r"AudioError: (.+)", str(error))
    return AudioError(found[1]) if found else None
