"""Separates recordings on a TensorFlow Serving server that serves an export of this project.

Examples:
  sccunet client --server=localhost:8501 --output_dir=OUT song.wav
  sccunet client --protocol=grpc --server=localhost:8500 --output_dir=OUT song.wav
  sccunet client --server=localhost:8501 --metadata

Each file is converted to a 16-bit WAV at the model's rate, and sent whole, in one request. The
stems are 16-bit WAVs at the model's rate, too: OUT/<file name without extension>/<stem>.wav. A
folder stands for the audio files in it, and `-` for a WAV file on standard input. If a file fails,
the others are done, and the exit code is 1.
"""

import io
import json
import os
import re
import sys
import wave
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from data_pipeline import audio
from experiments import cli, serving
from experiments.separating import stem_folders
from experiments.serving import ServingError
from sccunet.checks import counted
from sccunet.config import ConfigError
from sccunet.files import folder_written_whole


def wav_of(path: str | os.PathLike, rate: int) -> bytes:
    """Converts an audio file to a WAV file as the signature `separate_wav` takes it.

    TensorFlow's op knows neither WAVE_FORMAT_EXTENSIBLE nor the byte behind chunks of odd length,
    so WAV files get a plain header, too. Their 16-bit samples stay as they are if they have this
    rate; other samples are rounded, and clipped to full scale.

    Args:
      path: as for `audio.recording`.
      rate: sample rate of the result, in Hz.

    Returns:
      A 16-bit PCM WAV file with a plain header.

    Raises:
      AudioError: as `audio.recording`.
    """
    with audio.recording(path) as (info, blocks):
        samples = np.concatenate(list(blocks))
    if info.choice:
        cli.warn(f"{path}: {info.choice}")
    scaled = np.rint(audio.resample(samples, info.sample_rate, rate) * 32768)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((scaled.shape[1], 2, rate, len(scaled), "NONE", ""))
        writer.writeframes(np.clip(scaled, -32768, 32767).astype("<i2").tobytes())
    return file.getvalue()


def separate_file(
    separate: Callable[[bytes], Mapping[str, bytes]],
    path: str | os.PathLike,
    folder: str | os.PathLike,
    rate: int,
) -> None:
    """Sends an audio file to be separated and writes its stems.

    Args:
      separate: WAV file -> stem name -> WAV file.
      path: as for `audio.recording`.
      folder: the stems' folder, written whole or not at all. If it exists, its stems are replaced
        one by one.
      rate: the model's sample rate, in Hz.

    Raises:
      AudioError: as `audio.recording`.
      ServingError: as `separate` raises it, prefixed with the file's name.
    """
    wav = wav_of(path, rate)
    try:
        stems = separate(wav)
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
    metadata = serving.metadata_rest if rest else serving.metadata_grpc
    if _METADATA.value:
        if files:
            raise ConfigError(f"{files[0]}: found a file, expected none with --metadata")
        others = ("output_dir", "overwrite", "skip_existing", "recursive")
        cli.refuse_idle(others, True, "with --metadata")
        print(metadata(server, **options), end="")
        return
    from tqdm import tqdm

    function = serving.separate_rest if rest else serving.separate_grpc
    if _OUTPUT_DIR.value is None:
        raise ConfigError("--output_dir: not given, expected a folder for the stems")
    if not files:
        raise ConfigError("FILE: found none, expected recordings, folders of them, or -")
    given = flags.FLAGS
    planned = stem_folders.plan(
        files,
        _OUTPUT_DIR.value,
        given.overwrite,
        given.skip_existing,
        recursive=given.recursive,
    )
    stem_folders.warn_of_left_out(planned)
    folders, done = planned.todo, 0
    rate = json.loads(metadata(server, **options))["sample_rate"] if folders else 0
    for folder, file in tqdm(folders.items(), desc="separating", unit="file", disable=None):
        try:
            separate_file(lambda wav: function(server, wav, **options), file, folder, rate)
            done += 1
        except Exception as error:  # may be a library's own, and others are waiting
            cli.report_failure(file, error)
    of = f"{done} of " if done < len(folders) else ""
    print(f"stems of {of}{counted(len(folders), 'file')}: {_OUTPUT_DIR.value}")
    if done < len(folders):
        sys.exit(1)


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
