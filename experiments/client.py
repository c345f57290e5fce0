"""Separates recordings on a TensorFlow Serving server that serves an export of this project.

Examples:
  sccunet client --server=localhost:8501 --output_dir=OUT song.wav
  sccunet client --protocol=grpc --server=localhost:8500 --output_dir=OUT song.wav
  sccunet client --server=localhost:8501 --metadata

The files must be 16-bit PCM WAV at the model's sample rate. Each file is sent whole, in one
request, and its stems are written to OUT/<file name without extension>/<stem>.wav.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from absl import flags

from data_pipeline.wav import wav_info
from experiments import cli, serving
from experiments.separating import stem_folders
from experiments.serving import ServingError
from sccunet.checks import counted
from sccunet.config import ConfigError
from sccunet.files import folder_written_whole


def separate_file(
    separate: Callable[[bytes], Mapping[str, bytes]],
    path: str | os.PathLike,
    folder: str | os.PathLike,
) -> None:
    """Sends a WAV file to be separated and writes its stems.

    Args:
      separate: WAV file -> stem name -> WAV file.
      path: the WAV file.
      folder: the stems' folder, written whole or not at all. If it exists, its stems are replaced
        one by one.

    Raises:
      ServingError: as `separate` raises it, prefixed with the file's name.
    """
    try:
        stems = separate(Path(path).read_bytes())
        for stem in stems:
            if Path(stem).name != stem:
                raise ServingError(f"found the stem {stem!r}, expected a name that can be a file's")
    except ServingError as error:
        raise ServingError(f"{path}: {error}") from error
    with folder_written_whole(folder) as partial:
        for stem, wav in stems.items():
            (partial / f"{stem}.wav").write_bytes(wav)


def main(files: Sequence[str]) -> None:
    """Checks flags and files, then sends one file after the other."""
    server = _SERVER.value
    if not re.fullmatch(r"[^\s/]+:\d+", server):
        raise ConfigError(f"--server: found {server!r}, expected host:port")
    options = {
        "model_name": _MODEL_NAME.value,
        "model_version": _MODEL_VERSION.value,
        "timeout": _TIMEOUT.value,
    }
    rest = _PROTOCOL.value == "rest"
    if _METADATA.value:
        if files:
            raise ConfigError(f"{files[0]}: found a file, expected none with --metadata")
        others = ("output_dir", "overwrite", "skip_existing", "recursive")
        cli.refuse_idle(others, True, "with --metadata")
        print((serving.metadata_rest if rest else serving.metadata_grpc)(server, **options), end="")
        return
    from tqdm import tqdm

    function = serving.separate_rest if rest else serving.separate_grpc
    if _OUTPUT_DIR.value is None:
        raise ConfigError("--output_dir: not given, expected a folder for the stems")
    if not files:
        raise ConfigError("FILE: found none, expected one or more WAV files")
    given = flags.FLAGS
    planned = stem_folders.plan(
        files,
        _OUTPUT_DIR.value,
        given.overwrite,
        given.skip_existing,
        recursive=given.recursive,
    )
    stem_folders.warn_of_left_out(planned)
    folders = planned.todo
    for file in folders.values():
        encoding = wav_info(file).encoding
        if encoding != "pcm16":
            raise ConfigError(f"{file}: found {encoding}, expected a WAV file of 16-bit PCM")
    for folder, file in tqdm(folders.items(), desc="separating", unit="file", disable=None):
        separate_file(lambda wav: function(server, wav, **options), file, folder)
    print(f"stems of {counted(len(folders), 'file')}: {_OUTPUT_DIR.value}")


if __name__ == "__main__":
    _SERVER = flags.DEFINE_string(
        "server",
        None,
        "host:port. TensorFlow Serving's defaults: 8501 for REST, 8500 for gRPC.",
        required=True,
    )
    _PROTOCOL = flags.DEFINE_enum("protocol", "rest", ["rest", "grpc"], "Protocol of the server.")
    _MODEL_NAME = flags.DEFINE_string("model_name", "sccunet", "Name of the model on the server.")
    _MODEL_VERSION = flags.DEFINE_integer(
        "model_version",
        None,
        "Version of the model. Default: the newest that is loaded.",
        lower_bound=0,
    )
    _OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the stems.")
    stem_folders.define_flags()
    flags.adopt_module_key_flags(stem_folders)
    _TIMEOUT = flags.DEFINE_float(
        "timeout", 600, "Seconds that the server may take for one file.", lower_bound=0.001
    )
    _METADATA = flags.DEFINE_bool("metadata", False, "Only print the model's metadata.")
    cli.run(main, takes_files=True)
