"""Separates recordings of any length into stems.

Examples:
  sccunet separate song.wav
  sccunet separate --model=RUN --output_dir=OUT song.wav
  sccunet separate --model=EXPORT --output_dir=OUT song.flac "other song.mp3" ALBUM/
  sccunet separate --model=RUN --output_dir=OUT --stems=vocals,accompaniment song.wav
  sccunet separate --model=RUN --output_dir=OUT --format=flac --mask=soft song.wav
  sccunet separate --format=mp3 --bitrate=192k --name="{track} - {stem}" song.wav
  sccunet separate --format=stem.mp4 --start=1:00 --duration=30 song.wav
  sccunet separate --model=RUN --output_dir=OUT --recursive MUSIC/
  cat song.wav | sccunet separate --model=RUN --output_dir=OUT -

A folder stands for the audio files in it, and `-` for a WAV file on standard input. Stems are
written to OUT/<file name without extension>/<stem>.wav (OUT/stdin/ for `-`), with the length,
sample rate, channels and tags of the file; by default, OUT is "separated". With --recursive, a
folder stands for all folders inside it, too, and the stems of MUSIC/album/song.wav go to
OUT/album/song/. A file that cannot be read is reported; for a damaged file, the missing part is
reported. The other files are separated, and the exit code is 1.
"""

import sys
from collections.abc import Sequence

from absl import flags

from data_pipeline import audio
from experiments import cli, model_flag
from experiments.separating import separation_flags, stem_folders
from experiments.separating.recording import separate_file
from sccunet.checks import counted
from sccunet.config import ConfigError


def main(files: Sequence[str]) -> None:
    """Checks flags and files, then separates one file after the other."""
    if not files:
        raise ConfigError("FILE: found none, expected recordings, folders of them, or -")
    given = flags.FLAGS
    # A wrong --model is reported before TensorFlow is loaded.
    output, part = separation_flags.output_of_flags(), separation_flags.part_of_flags()
    planned = stem_folders.plan(
        files,
        given.output_dir,
        given.overwrite,
        given.skip_existing,
        output.written,
        given.recursive,
    )
    stem_folders.warn_of_left_out(planned)
    folders = planned.todo
    count, done = len(folders), 0
    for folder, file in list(folders.items()):
        if file != "-":
            try:
                with audio.recording(file, given.audio_stream, salvage=True) as (info, _):
                    for line in separation_flags.choice(file, info):
                        cli.warn(line)
            except Exception as error:
                cli.report_failure(file, error)
                del folders[folder]
    if folders:
        from sccunet.separation import Separator

        separation_flags.warn_of_tags(folders.values())
        separator = Separator.load(
            model_flag.value(),
            cli.reconstruction_of_flags(),
            given.precision,
            **model_flag.runtime(),
        )
    for folder, file in folders.items():
        try:
            separate_file(separator, file, folder, output, stream=given.audio_stream, part=part)
            done += 1
        except Exception as error:  # may be a library's own, and others are waiting
            cli.report_failure(file, error)
    skipped = " (files with existing stems skipped)" if given.skip_existing else ""
    print(f"stems of {done} of {counted(count, 'file')}{skipped}: {given.output_dir}")
    if done < count:
        sys.exit(1)


if __name__ == "__main__":
    separation_flags.define_flags()
    stem_folders.define_flags()
    for module in (separation_flags, stem_folders):
        flags.adopt_module_key_flags(module)
    cli.run(main, takes_files=True)
