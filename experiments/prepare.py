"""Decodes MUSDB18, or other stems in compressed files, to WAVs that training can stream.

Input, one folder per split (train, valid, test); the two layouts can be mixed:
  MUSDB18/train/<track>.stem.mp4
  MUSDB18/train/<track>/<stem>.<ogg|flac|mp3|m4a|wav|...>    any stem names, any sample rate
Output, 16-bit PCM in the layout of MUSDB18-HQ:
  DATA/train/<track>/<stem>.wav

Examples:
  sccunet prepare --input_dir=MUSDB18 --data_dir=DATA
  sccunet prepare --input_dir=PREVIEWS --data_dir=DATA --download
  sccunet prepare --input_dir=MY_STEMS --data_dir=DATA --tracks=one,two --jobs=2

Each track is written whole or not at all, and finished tracks are skipped: run the program again
after an interruption. All files are checked before the first is decoded. Several runs at once can
write into the same folder: each track is written by the run that finishes it first.
"""

from collections.abc import Sequence

from absl import flags

from experiments import cli
from experiments.preparing import inputs, preparation_flags, run


def main(_: Sequence[str]) -> None:
    """Downloads the previews if wanted, and prepares."""
    given, input_dir = flags.FLAGS, preparation_flags.input_dir_of_flags()
    if _DOWNLOAD.value:
        inputs.download(input_dir)
    run.prepare(
        input_dir, given.data_dir, _TRACKS.value, _JOBS.value, given.sample_rate, given.trim
    )


if __name__ == "__main__":
    preparation_flags.define_flags()
    flags.adopt_module_key_flags(preparation_flags)
    _TRACKS = cli.define_tracks("Prepare only these tracks, from any split.")
    _JOBS = flags.DEFINE_integer(
        "jobs",
        0,
        "Number of tracks to decode at the same time; 0: one per core, at most 8.",
        lower_bound=0,
    )
    _DOWNLOAD = flags.DEFINE_bool(
        "download", False, "First download musdb's 7-second previews into --input_dir."
    )
    cli.run(main)
