r"""Draws the spectrograms of true and estimated stems side by side, as a PNG.

Examples:
  sccunet plot --truth_dir=DATA/test/TRACK --model=RUN --output=TRACK.png
  sccunet plot --truth_dir=DATA/test/TRACK --model=RUN --output=CHORUS.png --start=61 --duration=20
  sccunet plot --truth_dir=DATA/test/TRACK --estimates_dir=OUT/TRACK --output=TRACK.png

--model separates the track's mixture; a track without a file of that name is the sum of its stems.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from data_pipeline import audio
from data_pipeline.errors import AudioError
from experiments import cli, model_flag
from experiments.preparing.inputs import sources_of
from experiments.reports import spectrograms
from sccunet.config import ConfigError

Read = Callable[[], np.ndarray]  # -> float32 [samples, channels]


class Part:
    """Reads the same part of several files, which must have one sample rate and length.

    Args:
      start: in seconds.
      duration: in seconds; None takes the rest.
    """

    def __init__(self, start: float = 0.0, duration: float | None = None):
        self.start = start
        self._duration = duration
        self._first: tuple[str, int, int] | None = None  # path, samples and sample rate of a file

    @property
    def sample_rate(self) -> int:
        """Sample rate of the files that were read, in Hz."""
        return self._first[2]

    def __call__(self, path: str, stream: int | None = None) -> np.ndarray:
        """Reads float32 [samples, channels].

        Raises:
          AudioError: if the file cannot be read, or differs from the first one.
          ConfigError: if the file ends before the part starts.
        """
        samples, rate = audio.read(path, stream)
        self._first = self._first or (path, len(samples), rate)
        where, length, expected = self._first
        if (len(samples), rate) != (length, expected):
            raise AudioError(
                f"{path}: found {len(samples)} samples at {rate} Hz, expected {length} at"
                f" {expected} Hz as in {where}"
            )
        first = round(self.start * rate)
        if first >= length:
            raise ConfigError(
                f"--start: found {self.start:g} s, expected less than the {length / rate:g} s of"
                f" {path}"
            )
        last = length if self._duration is None else first + max(1, round(self._duration * rate))
        return samples[first:last]


def files_in(folder: str, part: Part) -> dict[str, Read]:
    """Returns stem -> function that reads the part of its file.

    Raises:
      AudioError: if the folder holds no audio, or two files for one stem.
    """
    sources = sources_of(folder)
    return {stem: functools.partial(part, *source) for stem, source in sources.items()}


def separated(truth: Mapping[str, Read], part: Part, model: Path) -> dict[str, Read]:
    """Separates the mixture of a track with a model.

    Returns:
      Stem -> function that returns its estimate.

    Raises:
      ConfigError: if the model cannot be loaded.
    """
    from sccunet.separation import Separator

    separator = Separator.load(model)
    stems = [truth["mixture"]] if "mixture" in truth else truth.values()
    mixture = sum(read() for read in stems)
    estimates = separator(mixture, part.sample_rate)
    return {stem: lambda samples=samples: samples for stem, samples in estimates.items()}


def read_pairs(
    truth_dir: str, truth: Mapping[str, Read], estimates: Mapping[str, Read]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields each stem, sorted, then the mixture, with truth and estimate: means of the channels.

    A stem without a true file is the sum of the files that are neither the mixture nor another
    stem. The mixtures are the sums of the stems.

    Raises:
      AudioError: if a file cannot be read, or a true stem is missing.
    """
    files = truth.keys() - {"mixture"}
    left_over = sorted(files - estimates.keys())
    sums = [0.0, 0.0]
    for stem in sorted(estimates.keys() - {"mixture"}):
        sources = [stem] if stem in files else left_over
        if not sources:
            raise AudioError(f"{truth_dir}: found no {stem}.wav, expected the true stems")
        pair = sum(truth[name]() for name in sources), estimates[stem]()
        pair = [samples.mean(axis=1) for samples in pair]
        sums = [sums[i] + pair[i] for i in range(2)]
        yield stem, *pair
    yield "mixture", *sums


def main(_: Sequence[str]) -> None:
    """Draws one track."""
    cli.refuse_idle(["estimates_dir"], flags.FLAGS.model, "beside --model")
    model = None if _ESTIMATES_DIR.value else model_flag.value()
    part = Part(_START.value, _DURATION.value)
    truth = files_in(_TRUTH_DIR.value, part)
    estimates = separated(truth, part, model) if model else files_in(_ESTIMATES_DIR.value, part)
    drawn = {}
    for name, *pair in read_pairs(_TRUTH_DIR.value, truth, estimates):
        drawn[name] = tuple(spectrograms.levels(each, part.sample_rate) for each in pair)
        seconds = len(pair[0]) / part.sample_rate
    drawn = {"mixture": drawn.pop("mixture"), **drawn}
    spectrograms.of_pairs(drawn, part.sample_rate, part.start, seconds, _OUTPUT.value)
    print(_OUTPUT.value)


if __name__ == "__main__":
    _TRUTH_DIR = flags.DEFINE_string("truth_dir", None, "Folder of a track's stems.", required=True)
    _ESTIMATES_DIR = flags.DEFINE_string("estimates_dir", None, "Folder of the track's estimates.")
    model_flag.define(", in place of --estimates_dir")
    _START = flags.DEFINE_float("start", 0.0, "Draw from here, in seconds.", lower_bound=0)
    _DURATION = flags.DEFINE_float(
        "duration", None, "Draw this many seconds. Default: all from --start.", lower_bound=0
    )
    _OUTPUT = flags.DEFINE_string("output", None, "The PNG to write.", required=True)
    cli.run(main, needs=["matplotlib"])
