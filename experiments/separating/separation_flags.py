"""Flags that separate and catalogue share: what is separated, and how stems are written."""

from absl import flags

from data_pipeline import audio
from data_pipeline.audio_writer import WRITABLE
from experiments import cli, model_flag
from experiments.separating.recording import RESIDUAL, Output, parse_stems
from sccunet.config import PRECISIONS, ConfigError
from sccunet.runs import load_config

_CLIP_MODES = ("rescale", "clamp", "none")


def define_flags() -> None:
    """Defines the flags; programs adopt them as key flags of this module."""
    model_flag.define()
    flags.DEFINE_string("output_dir", None, "Folder for the stems.", required=True)
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
    flags.DEFINE_enum(
        "precision",
        "float32",
        PRECISIONS,
        "Precision of the network's inner layers. mixed_bfloat16 is faster on CPUs and GPUs with"
        " bfloat16 units, and needs a training workdir.",
    )
    flags.DEFINE_enum(
        "format",
        "wav",
        [ending.removeprefix(".") for ending in WRITABLE],
        "File format of the stems.",
    )
    defaults = ", ".join(
        f"{encodings[0]} in {ending.removeprefix('.').upper()}"
        for ending, encodings in WRITABLE.items()
    )
    flags.DEFINE_enum(
        "encoding",
        None,
        list(dict.fromkeys(name for encodings in WRITABLE.values() for name in encodings)),
        f"Sample format of the stems. Default: {defaults}.",
    )
    flags.DEFINE_enum(
        "clip_mode",
        None,
        _CLIP_MODES,
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
    encodings = WRITABLE[ending]
    encoding = given.encoding or encodings[0]
    if encoding not in encodings:
        raise ConfigError(
            f"--encoding: found {encoding}, expected {' or '.join(sorted(encodings))} in"
            f" {given.format.upper()}"
        )
    clip_mode = given.clip_mode or ("none" if encoding == "float32" else "rescale")
    if clip_mode == "none" and encoding != "float32":
        raise ConfigError(
            f"--clip_mode: found none, expected rescale or clamp: {encoding} is limited to full"
            " scale"
        )
    cli.reconstruction_of_flags()  # for its checks
    stems = load_config(model_flag.value()).model.stems
    sums = parse_stems(given.stems, stems)
    if given.residual and RESIDUAL in stems:
        raise ConfigError("--residual: found a stem named residual, expected none")
    return Output(sums, ending, encoding, clip_mode, given.residual)


def choice(file: str, info: audio.AudioInfo) -> list[str]:
    """Says which of several audio streams is separated, if --audio_stream did not."""
    expected = "expected --audio_stream=N if another is meant"
    return [f"{file}: {info.choice}, {expected}"] if info.choice else []
