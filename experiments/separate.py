"""Separates recordings of any length into stems.

Examples:
  sccunet separate --model=RUN --output_dir=OUT song.wav
  sccunet separate --model=EXPORT --output_dir=OUT song.flac "other song.mp3" ALBUM/
  sccunet separate --model=RUN --output_dir=OUT --stems=vocals,accompaniment song.wav
  sccunet separate --model=RUN --output_dir=OUT --format=flac --mask=soft song.wav
  cat song.wav | sccunet separate --model=RUN --output_dir=OUT -

A folder stands for the audio files in it, `-` for a WAV on standard input. Each file's stems are
written to OUT/<file name without its ending>/<stem>.wav (OUT/stdin/ for `-`), as long as the file,
at its sample rate and with its channels. A file that cannot be read is reported, and so is how much
is missing of a damaged one; the others are separated, and the exit code is 1.
"""

import sys
from collections.abc import Sequence

from absl import flags

from data_pipeline import audio
from experiments import cli, separation_flags, stem_folders
from experiments.separating import separate_file
from sccunet.config import ConfigError, UserError


def main(files: Sequence[str]) -> None:
    """Checks all that can be checked, then separates file after file."""
    if not files:
        raise ConfigError("FILE: found none, expected recordings, folders of them, or -")
    given = flags.FLAGS
    # A wrong --model is reported before TensorFlow is loaded.
    output = separation_flags.output_of_flags()
    folders = stem_folders.plan(
        files, given.output_dir, given.overwrite, given.skip_existing, output.files
    )
    count, done = len(folders), 0
    for folder, file in list(folders.items()):
        if file != "-":
            try:
                with audio.recording(file, salvage=True):
                    pass
            except UserError as error:
                _report(error)
                del folders[folder]
    if folders:
        from sccunet.separation import Separator

        separator = Separator.load(given.model, cli.reconstruction_of_flags(), given.precision)
    for folder, file in folders.items():
        try:
            separate_file(separator, file, folder, output)
            done += 1
        except UserError as error:
            _report(error)
    left_out = ", without those that had theirs" if given.skip_existing else ""
    print(f"stems of {done} of {count} files{left_out}: {given.output_dir}")
    if done < count:
        sys.exit(1)


def _report(error: UserError) -> None:
    cli.report(str(error).replace("\n", "\\n"))  # names can hold anything


if __name__ == "__main__":
    separation_flags.define_flags()
    stem_folders.define_flags()
    for module in (separation_flags, stem_folders):
        flags.adopt_module_key_flags(module)
    cli.run(main, takes_files=True)
