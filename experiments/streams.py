"""Standard streams that work whatever the shell made of them, for every process of the programs."""

import codecs
import errno
import io
import os
import sys

from absl import logging

_NAMES = "names of files"


def protect() -> None:
    """Makes writing to standard output and error safe. May be called again.

    - A closed stream (`>&-`) is opened on the null device. Otherwise the next file that is opened
      would get its number, and receive what libraries print.
    - When the reader of a stream is gone (`| true`), or its disk full, what is written is dropped.
    - Names that are not UTF-8 are written with their own bytes; characters that the stream's
      encoding lacks are written as escapes.
    """
    codecs.register_error(_NAMES, _encode_anything)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            os.set_inheritable(number, True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        protected = _protected(stream, number)
        for place in (name, f"__{name}__"):
            if getattr(sys, place) is stream:
                setattr(sys, place, protected)
    # Made when absl was imported, with the standard error of that time.
    logging.get_absl_handler().python_handler.stream = sys.stderr


def lost_output() -> OSError | None:
    """Returns why standard output could not be written, unless its reader was gone."""
    sys.stdout.flush()
    return getattr(_file_of(sys.stdout), "lost", None)


class _Sink(io.FileIO):
    """A file that turns into the null device when it cannot be written.

    Attributes:
      lost: the error that ended writing, if the file's reader was not gone.
    """

    lost: OSError | None = None

    def write(self, content: bytes) -> int | None:
        try:
            return super().write(content)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: a terminal that is gone
                self.lost = error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return super().write(content)


def _protected(stream: io.TextIOBase | None, number: int) -> io.TextIOBase:
    """Returns a stream that writes to the same file; those that are no files are left alone."""
    options = {}
    if stream is not None:
        try:
            number = stream.fileno()
            options = {
                "encoding": stream.encoding,
                "line_buffering": stream.line_buffering,
                "write_through": stream.write_through,
            }
        except (AttributeError, io.UnsupportedOperation):  # in notebooks and tests
            return stream
        if isinstance(_file_of(stream), _Sink):
            return stream
        stream.flush()
    sink = _Sink(number, "wb", closefd=False)
    # PYTHONUNBUFFERED and `python -u` mean that nothing waits in a buffer.
    buffer = sink if options.get("write_through") else io.BufferedWriter(sink)
    return io.TextIOWrapper(buffer, errors=_NAMES, **options)


def _file_of(stream: io.TextIOBase) -> io.IOBase | None:
    """Returns the file below a stream and its buffer."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _encode_anything(error: UnicodeError) -> tuple[str | bytes, int]:
    """Error handler for `codecs`: the bytes of a name that is not UTF-8, otherwise an escape."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)
