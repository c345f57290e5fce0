"""Flags that separate and catalogue share: what is separated, and how stems are written."""

import itertools
import math
import re
from collections.abc import Iterable

from absl import flags

from data_pipeline import audio, tags
from data_pipeline.formats import WRITABLE
from experiments import cli, missing, model_flag
from experiments.separating.output import (
    CLIP_MODES,
    MIXTURE,
    RESIDUAL,
    Output,
    check_pattern,
    parse_stems,
)
from sccunet.config import PRECISIONS, ConfigError, UserError
from sccunet.runs import load_config

_LOOKED_AT = 100  # files


def define_flags() -> None:
    """Defines the flags; programs adopt them as key flags of this module."""
    model_flag.define()
    flags.DEFINE_string("output_dir", "separated", "Folder for the stems.")
    flags.DEFINE_multi_string(
        "stems",
        [],
        "Stems to write: stems of the model, sums (backing=drums+bass), or accompaniment, which is"
        " all stems but vocals. Default: every stem.",
    )
    flags.DEFINE_bool(
        "residual",
        False,
        "Also write residual: the mixture minus the sum of all of the model's stems.",
    )
    flags.DEFINE_integer(
        "audio_stream",
        None,
        "Number of the audio stream to separate, from 0, in files that have several. Default: the"
        " one that is marked as default, or else the first.",
        lower_bound=0,
    )
    cli.define_reconstruction()
    model_flag.define_runtime()
    flags.DEFINE_enum(
        "precision",
        "float32",
        PRECISIONS,
        "Precision of the network's inner layers. mixed_bfloat16 is faster on CPUs and GPUs with"
        " bfloat16 units, and needs a training workdir.",
    )
    for name, text in {
        "start": "Where the part begins that is separated, in seconds or as 1:30.",
        "duration": "How long the part is that is separated, in seconds or as 1:30. Default: to the"
        " end.",
    }.items():
        flags.DEFINE_string(name, None, text)
    _define_format_flags()


def _define_format_flags() -> None:
    """Defines the flags for how stems are written."""
    lossless = {ending: kind for ending, kind in WRITABLE.items() if kind.encodings}
    flags.DEFINE_enum(
        "format",
        "wav",
        [ending.removeprefix(".") for ending in WRITABLE],
        "File format of the stems. stem.mp4: the mixture and the stems as streams of one file.",
    )
    flags.DEFINE_string(
        "name",
        "{stem}",
        "Name of a stem's file without its ending, such as '{track} - {stem}'.",
    )
    defaults = ", ".join(
        f"{kind.encodings[0]} in {ending.removeprefix('.').upper()}"
        for ending, kind in lossless.items()
    )
    flags.DEFINE_enum(
        "encoding",
        None,
        list(dict.fromkeys(name for kind in lossless.values() for name in kind.encodings)),
        f"Sample format of the stems. Default: {defaults}.",
    )
    defaults = ", ".join(
        f"{2 * kind.bitrate}k in {ending.removeprefix('.')}"
        for ending, kind in WRITABLE.items()
        if not kind.encodings
    )
    flags.DEFINE_string(
        "bitrate",
        None,
        f"Bitrate of a lossy file, such as 192k, in kbit/s. Default for stereo: {defaults}; half of"
        " it for one channel.",
    )
    flags.DEFINE_enum(
        "clip_mode",
        None,
        CLIP_MODES,
        "Treatment of samples beyond full scale. rescale: divide all stems of the file by one"
        " factor. clamp: limit the samples to full scale. none: keep them. Default: none for"
        " float32, otherwise rescale.",
    )


def output_of_flags() -> Output:
    """Returns what the flags say is written.

    Raises:
      ConfigError: if the flags contradict each other, or there is no model.
    """
    given = flags.FLAGS
    ending = f".{given.format}"
    kind = WRITABLE[ending]
    lossy, beside = not kind.encodings, f"with --format={given.format}"
    cli.refuse_idle(["encoding"], lossy, beside)
    cli.refuse_idle(["bitrate"], not lossy, beside)
    cli.refuse_idle(["name"], kind.stems, beside)
    encoding = None if lossy else given.encoding or kind.encodings[0]
    if not lossy and encoding not in kind.encodings:
        raise ConfigError(
            f"--encoding: found {encoding}, expected {' or '.join(sorted(kind.encodings))} in"
            f" {given.format.upper()}"
        )
    clip_mode = given.clip_mode or ("none" if encoding == "float32" else "rescale")
    if clip_mode == "none" and encoding != "float32":
        raise ConfigError(
            f"--clip_mode: found none, expected rescale or clamp: {encoding or given.format} is"
            " limited to full scale"
        )
    check_pattern(given.name)
    bitrate = None if given.bitrate is None else bitrate_of(given.bitrate, given.format)
    part_of_flags()
    cli.reconstruction_of_flags()  # for its checks
    stems = load_config(model_flag.value()).model.stems
    sums = parse_stems(given.stems, stems)
    if given.residual and RESIDUAL in stems:
        raise ConfigError("--residual: found a stem named residual, expected none")
    if kind.stems and MIXTURE in sums:
        raise ConfigError(f"--stems: found mixture, expected another name {beside}")
    return Output(sums, ending, encoding, clip_mode, given.residual, bitrate, given.name)


def bitrate_of(text: str, name: str) -> int:
    """Returns a bitrate in kbit/s: 192 for "192" and "192k".

    Raises:
      ConfigError: if the format of that name does not have it.
    """
    low, high = WRITABLE[f".{name}"].bitrates
    found = re.fullmatch(r"(\d+)k?", text)
    if not found or not low <= int(found[1]) <= high:
        raise ConfigError(f"--bitrate: found {text!r}, expected {low}k to {high}k in {name}")
    return int(found[1])


def part_of_flags() -> audio.Part:
    """Returns the part of each recording that the flags say is separated.

    Raises:
      ConfigError: if they are no times.
    """
    start, duration = flags.FLAGS.start, flags.FLAGS.duration
    seconds = None if duration is None else seconds_of("duration", duration)
    if seconds == 0:
        raise ConfigError(f"--duration: found {duration!r}, expected more than 0")
    return audio.Part(0.0 if start is None else seconds_of("start", start), seconds)


def seconds_of(flag: str, text: str) -> float:
    """Returns the seconds of a time such as "90", "1:30" or "1:02:03.5".

    Raises:
      ConfigError: for other texts.
    """
    found = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+\.?\d*|\.\d+)", text)
    hours, minutes, seconds = found.groups("0") if found else ("0", "0", "inf")
    below = ":" not in text or float(seconds) < 60
    if not math.isfinite(float(seconds)) or not below or len(hours + minutes) > 9:
        raise ConfigError(f"--{flag}: found {text!r}, expected seconds, or a time such as 1:30")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def warn_of_tags(files: Iterable[str]) -> None:
    """Says in one line that tags are not copied, if files have some and mutagen is missing."""
    try:
        missing.check("mutagen")
    except UserError as error:
        some = itertools.islice(files, _LOOKED_AT)  # of a catalogue's thousands
        if tagged := next((file for file in some if file != "-" and tags.has_tags(file)), None):
            cli.warn(f"{tagged}: its tags are not copied: {error}")


def choice(file: str, info: audio.AudioInfo) -> list[str]:
    """Says which of several audio streams is separated, if --audio_stream did not."""
    expected = "expected --audio_stream=N if another is meant"
    return [f"{file}: {info.choice}, {expected}"] if info.choice else []
