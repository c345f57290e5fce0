"""Flags that prepare and catalogue share: what is decoded, and how."""

from absl import flags

from sccunet.config import ConfigError


def define_flags() -> None:
    """Defines the flags; programs adopt them as key flags of this module."""
    flags.DEFINE_string(
        "input_dir", None, "Input: <split>/<track>.stem.mp4 or <split>/<track>/<stem>.*"
    )
    flags.DEFINE_string("musdb_dir", None, "The same as --input_dir.")
    flags.DEFINE_string(
        "data_dir", None, "Output: <split>/<track>/<stem>.wav, 16-bit PCM.", required=True
    )
    flags.DEFINE_integer("sample_rate", 44_100, "Sample rate of the output, in Hz.", lower_bound=1)
    flags.DEFINE_integer(
        "trim",
        0,
        "Cut the files of a track to the shortest if their lengths differ by at most this many"
        " samples of the output.",
        lower_bound=0,
    )


def input_dir_of_flags() -> str:
    """Returns the input folder.

    Raises:
      ConfigError: if it is not given, or twice.
    """
    given = flags.FLAGS
    if given.input_dir and given.musdb_dir:
        raise ConfigError("--input_dir: found --musdb_dir too, expected one of them")
    if not (given.input_dir or given.musdb_dir):
        raise ConfigError("--input_dir: not given, expected a value (--help lists all flags)")
    return given.input_dir or given.musdb_dir
