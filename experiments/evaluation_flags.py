"""Flags that evaluate and catalogue share: what is scored."""

from absl import flags

from experiments import cli, model_flag
from experiments.baselines.systems import SYSTEMS
from experiments.evaluating import Options
from sccunet.config import Config


def define_flags() -> None:
    """Defines the flags; programs adopt them as key flags of this module."""
    model_flag.define("; its config defines the stems")
    cli.define_config("Defines the stems in place of a model.")
    flags.DEFINE_string("data_dir", None, "Tracks in the MUSDB18-HQ layout.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder for the scores.", required=True)
    flags.DEFINE_string("split", "test", "Split to score.")
    cli.define_tracks("Score these tracks instead, from any split.")
    flags.DEFINE_enum(
        "system",
        "model",
        list(SYSTEMS),
        "System to score. "
        + "; ".join(f"{name}: {kind.what}" for name, kind in SYSTEMS.items())
        + ".",
    )
    flags.DEFINE_string(
        "weights",
        None,
        "Weights of the system. "
        + "; ".join(f"{name}: {kind.weights}" for name, kind in SYSTEMS.items() if kind.weights)
        + ".",
    )
    flags.DEFINE_float(
        "excerpt",
        None,
        "Separate and score this many seconds from the middle of each track. Default: all of it.",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "quiet_db",
        None,
        "Show museval's scores also without the seconds in which a reference is below this level in"
        " dBFS (root mean square), such as -60; in columns of their own.",
        upper_bound=0,
    )
    cli.define_reconstruction()
    model_flag.define_runtime()


def options_of_flags() -> Options:
    """Returns what the flags say is scored.

    Raises:
      ConfigError: if flags have no effect beside each other.
    """
    given = flags.FLAGS
    cli.refuse_idle_overrides(cli.FIELDS_OF_STEMS)
    cli.refuse_idle(["split"], given.tracks, "beside --tracks, which are from any split")
    models = ("mask", "mask_exponent", "wiener_iterations", *model_flag.RUNTIME_FLAGS)
    cli.refuse_idle(models, given.system != "model", f"beside --system={given.system}")
    return Options(
        given.data_dir,
        given.output_dir,
        model=model_flag.value_without_config(),
        config=Config.from_dict(given.config) if given.config else None,
        system=given.system,
        weights=given.weights,
        reconstruction=cli.reconstruction_of_flags(),
        running=model_flag.runtime(),
        split=given.split,
        names=given.tracks,
        excerpt=given.excerpt,
        quiet_db=given.quiet_db,
    )
