"""Decodes MUSDB18, or other stems in compressed files, to WAVs that training can stream.

Input, one folder per split (train, valid, test); the two layouts can be mixed:
  MUSDB18/train/<track>.stem.mp4
  MUSDB18/train/<track>/<stem>.<ogg|flac|mp3|m4a|wav|...>    any stem names, any sample rate
Output, 16-bit PCM in the layout of MUSDB18-HQ:
  DATA/train/<track>/<stem>.wav

Examples:
  sccunet prepare --musdb_dir=MUSDB18 --data_dir=DATA
  sccunet prepare --musdb_dir=PREVIEWS --data_dir=DATA --download
  sccunet prepare --musdb_dir=MY_STEMS --data_dir=DATA --tracks=one,two --jobs=2

Each track is written whole or not at all, and finished tracks are skipped: run the program again
after an interruption. All files are checked before the first is decoded.
"""

from collections.abc import Sequence

from absl import flags

from experiments import cli, preparing


def main(_: Sequence[str]) -> None:
    """Downloads the previews if wanted, and prepares."""
    if _DOWNLOAD.value:
        preparing.download(_MUSDB_DIR.value)
    preparing.prepare(
        _MUSDB_DIR.value, _DATA_DIR.value, _TRACKS.value, _JOBS.value, _SAMPLE_RATE.value
    )


if __name__ == "__main__":
    _MUSDB_DIR = flags.DEFINE_string(
        "musdb_dir",
        None,
        "Input: <split>/<track>.stem.mp4 or <split>/<track>/<stem>.*",
        required=True,
    )
    _DATA_DIR = flags.DEFINE_string(
        "data_dir", None, "Output: <split>/<track>/<stem>.wav, 16-bit PCM.", required=True
    )
    _TRACKS = cli.define_tracks("Prepare only these tracks, from any split.")
    _JOBS = flags.DEFINE_integer(
        "jobs",
        0,
        "Number of tracks to decode at the same time; 0: one per core, at most 8.",
        lower_bound=0,
    )
    _DOWNLOAD = flags.DEFINE_bool(
        "download", False, "First download musdb's 7-second previews into --musdb_dir."
    )
    _SAMPLE_RATE = flags.DEFINE_integer(
        "sample_rate", 44_100, "Sample rate of the output, in Hz.", lower_bound=1
    )
    cli.run(main)
