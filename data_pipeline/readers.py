"""Readers of crops of WAV files in a tf.data graph, by name.

Memory maps are the default. They are several times faster (results/benchmark) and work with every
TensorFlow version; they make one Python call per batch, whose NumPy loops let other threads run.
tensorflow-io runs in the graph without Python. A reader reads only the crop's bytes.

To add a reader, write a module beside `mmap_reader` and name it here.
"""

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sccunet.config import ConfigError

if TYPE_CHECKING:  # so that programs show the readers' names at once
    import tensorflow as tf

    from data_pipeline.errors import AudioError
    from data_pipeline.mmap_reader import MakeReader

READERS = ("mmap", "tfio")


def reader_named(name: str) -> "MakeReader":
    """Returns the function that makes a reader of files.

    Args:
      name: one of `READERS`.

    Raises:
      ConfigError: if the name is unknown, or a package that the reader needs is not installed.
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
    """Returns the reader's AudioError inside a TensorFlow error; None if there is none."""
    from data_pipeline.errors import AudioError

    found = re.search(r"AudioError: (.+)", str(error))
    return AudioError(found[1]) if found else None


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Context manager that raises a reader's AudioError itself, without TensorFlow's error."""
    try:
        yield
    except Exception as error:
        tf = sys.modules.get("tensorflow")  # without it, readers raise their errors themselves
        if tf and isinstance(error, tf.errors.OpError) and (found := error_of(error)):
            raise found from error
        raise
