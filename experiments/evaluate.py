"""Scores a model, or a reference system, on the tracks of a data directory.

Examples:
  python -m experiments.evaluate --model=RUN --data_dir=DATA --split=test --output_dir=SCORES
  python -m experiments.evaluate --model=RUN --data_dir=DATA --output_dir=SCALED --system=scaled

--model is a training workdir or an exported SavedModel; its config says which stems are scored, so
the reference systems need it too. Started again, the program scores only what is missing.

Written into SCORES:
  <split>/<track>.json                  museval's own file; museval's EvalStore reads the folder
  whole_track_sdr/<split>/<track>.json  SDR of the Music Demixing Challenge, another measure
  empty_bands/<split>/<track>.json      references on which SIR, ISR and SAR cannot be trusted
  summary.json, evaluation.json         the summary, and what was scored
"""

import concurrent.futures
import contextlib
import hashlib
import json
import multiprocessing
import os
import threading
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from absl import flags
from tqdm import tqdm

from experiments import cli
from sccunet.config import Config, ConfigError

SYSTEMS = ("model", "mixture", "scaled", "irm")
METRICS = ("SDR", "SIR", "SAR", "ISR")
MUSEVAL = "museval v4 (BSSEval v4), 1 s frames; median over tracks of the median over frames, dB"
WHOLE_TRACK = "SDR of the Music Demixing Challenge over whole tracks; median over tracks, dB"

# (mixture [samples, channels], references [stems, samples, channels]) -> estimates, as references.
System = Callable[[np.ndarray, np.ndarray], np.ndarray]

_SETTINGS = "evaluation.json"
_SUMMARY = "summary.json"
_WHOLE_TRACK_DIR = "whole_track_sdr"
_EMPTY_BANDS_DIR = "empty_bands"

# museval fits filters that turn the references into the estimate. Where a reference has next to no
# energy they grow without bound, and push SIR, ISR and SAR down. Tried on the ideal ratio mask of a
# rendered song, with noise added to the references: with the emptiest 2 kHz 88 dB below the stem
# the worst stem's SIR was 2 dB too low, at 92 dB 3, at 100 dB 7, at 104 dB 11, at 130 dB 60, and
# the other stems' suffered too. SDR was always right.
_BAND_HZ = 2000
_EMPTY_DB = -88.0

# Peak memory of a scoring process, as measured, for each sample of each stem's channel when padded
# to a power of two, which museval's FFT does.
_MUSEVAL_BYTES = 45

# BLAS reads these when it is loaded: one thread for each process, so that N processes use N cores.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def evaluate(
    model: str | os.PathLike,
    data_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    split: str = "test",
    names: Sequence[str] = (),
    system: str = "model",
    jobs: int | None = None,
) -> dict[str, Any]:
    """Scores a system on tracks, several at a time; tracks with scores in `output_dir` are skipped.

    Scoring runs in spawned processes: a program that calls this needs the usual
    `if __name__ == "__main__"`.

    Args:
      model: training workdir or exported SavedModel.
      data_dir: tracks in the MUSDB18-HQ layout.
      output_dir: for the scores of this system on this split alone.
      split: which tracks, if none are named.
      names: score these tracks instead, wherever they are.
      system: one of `SYSTEMS`.
      jobs: processes that score; None takes as many as cores and memory allow.

    Returns:
      The summary of these tracks, as `summarise` makes it.

    Raises:
      ConfigError: for an unknown system, a model that cannot be read, or an `output_dir` that holds
        the scores of something else.
      AudioError: for tracks that cannot be found or read.
    """
    from data_pipeline.tracks import check_finite, find_tracks
    from sccunet.config import load_config

    if system not in SYSTEMS:
        raise ConfigError(f"system: found {system!r}, expected one of {', '.join(SYSTEMS)}")
    output_dir = Path(output_dir)
    config = load_config(model)
    tracks = find_tracks(data_dir, config, split=split, names=names)
    settings = _settings(model, config, os.fspath(data_dir), split, system)
    _check_settings(output_dir, settings)
    keys = [f"{track.split}/{track.name}" for track in tracks]
    missing = [
        track
        for track, key in zip(tracks, keys, strict=True)
        if not (output_dir / f"{key}.json").exists()
    ]
    if missing:
        check_finite(missing)
        separate = load_system(system, model, config)
        _write_whole(output_dir / _SETTINGS, _to_json(settings))
        if jobs is None:
            jobs = _default_jobs(missing, config)
        _score_tracks(
            missing, config, separate, output_dir, jobs, finished=len(keys) - len(missing)
        )
    summary = summarise(output_dir, keys)
    _write_whole(output_dir / _SUMMARY, _to_json(summary))
    return summary


def load_system(system: str, model: str | os.PathLike, config: Config) -> System:
    """The function that estimates the stems of a track.

    Args:
      system: one of `SYSTEMS`.
      model: training workdir or exported SavedModel; read for "model" only.
      config: the model's.

    Raises:
      ConfigError: if the model cannot be loaded.
    """
    stems = config.model.stems
    if system == "mixture":
        return lambda mixture, references: np.stack([mixture] * len(stems))
    if system == "scaled":
        return scaled_mixture
    if system == "irm":
        frame, hop = config.model.frame_length, config.model.hop_length
        return lambda mixture, references: ideal_ratio_mask(mixture, references, frame, hop)

    from sccunet.separation import Separator

    separator = Separator.load(model)

    def separate(mixture: np.ndarray, references: np.ndarray) -> np.ndarray:
        estimates = separator(mixture, config.model.sample_rate)
        return np.stack([estimates[stem] for stem in stems])

    return separate


def scaled_mixture(mixture: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The mixture times the constant that suits each stem best: what turning it down alone gains.

    Args:
      mixture: [samples, channels].
      references: [stems, samples, channels].

    Returns:
      float32 [stems, samples, channels]: for each stem the multiple of the mixture with the least
      squared error over all samples and channels.
    """
    mixture = np.asarray(mixture, np.float64)
    energy = np.vdot(mixture, mixture)
    gains = [np.vdot(mixture, stem) / energy if energy else 0.0 for stem in references]
    return np.stack([(gain * mixture).astype(np.float32) for gain in gains])


def ideal_ratio_mask(
    mixture: np.ndarray, references: np.ndarray, frame_length: int, hop_length: int
) -> np.ndarray:
    """The oracle of magnitude masks: |S_i| / sum_j |S_j| times the mixture's STFT, per channel.

    Args:
      mixture: [samples, channels].
      references: [stems, samples, channels].
      frame_length: of the Hann window and the FFT, in samples.
      hop_length: in samples.

    Returns:
      float32 [stems, samples, channels].
    """
    from scipy import signal

    window = signal.get_window("hann", frame_length)
    stft = signal.ShortTimeFFT(window, hop_length, fs=1)  # fs: times and frequencies are not used
    estimates = np.zeros(references.shape, np.float32)
    samples = len(mixture)
    padding = (0, max(0, frame_length - samples))  # the inverse needs a whole frame
    for channel in range(mixture.shape[1]):  # one at a time: a song's spectrograms are large
        spectrum = stft.stft(np.pad(mixture[:, channel], padding))  # [bins, frames]
        magnitudes = np.stack(
            [
                np.abs(stft.stft(np.pad(stem[:, channel], padding))).astype(np.float32)
                for stem in references
            ]
        )
        total = magnitudes.sum(axis=0)
        for i, magnitude in enumerate(magnitudes):
            mask = np.divide(magnitude, total, out=np.zeros_like(total), where=total > 0)
            estimates[i, :, channel] = stft.istft(mask * spectrum, k1=samples + padding[1])[
                :samples
            ]
    return estimates


def as_16_bit(references: np.ndarray) -> np.ndarray:
    """References rounded to 16 bit, the resolution of MUSDB18-HQ, still as floats.

    A reference decoded from lossy audio into float has an empty uppermost band, on which museval's
    SIR, ISR and SAR are garbage; the rounding leaves noise there. SDR does not change.
    """
    return np.round(references * 32768) / 32768


def museval_scores(
    references: np.ndarray, estimates: np.ndarray, sample_rate: int
) -> dict[str, np.ndarray]:
    """museval's BSSEval v4 in frames of one second, as `museval.eval_mus_track` calls it.

    A second in which any reference or any estimate is all zeros is NaN for every stem, and so is
    the whole track if one of them is all zeros throughout.

    Args:
      references: [stems, samples, channels].
      estimates: [stems, samples, channels].
      sample_rate: in Hz.

    Returns:
      Metric -> float [stems, seconds], dB. An incomplete last second is not scored.
    """
    from data_pipeline import sigsep

    museval = sigsep.load("museval")
    # museval's definition of silence: the channels' sum. It raises where a whole signal is silent.
    if any((signals.sum(axis=2) == 0).all(axis=1).any() for signals in (references, estimates)):
        stems, samples, _ = references.shape
        nothing = np.full((stems, max(1, samples // sample_rate)), np.nan)
        return dict.fromkeys(METRICS, nothing)
    with contextlib.ExitStack() as stack:
        if not hasattr(np.linalg, "linalg"):
            # museval catches singular matrices under a name that NumPy 2.4 does not have.
            linalg = types.SimpleNamespace(LinAlgError=np.linalg.LinAlgError)
            stack.enter_context(mock.patch.object(np.linalg, "linalg", linalg, create=True))
        sdr, isr, sir, sar = museval.evaluate(
            references, estimates, win=sample_rate, hop=sample_rate
        )
    return {"SDR": sdr, "SIR": sir, "SAR": sar, "ISR": isr}


def whole_track_sdr(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """SDR as in the Music Demixing Challenge 2021 (Mitsufuji et al., arXiv:2108.13559).

    10 log10((sum r^2 + 1e-7) / (sum (r - e)^2 + 1e-7)), the sums over all samples and channels.

    Args:
      references: [stems, samples, channels].
      estimates: [stems, samples, channels].

    Returns:
      float [stems], dB.
    """
    signal = np.sum(np.square(references), axis=(1, 2), dtype=np.float64)
    error = np.sum(np.square(references - estimates), axis=(1, 2), dtype=np.float64)
    return 10 * np.log10((signal + 1e-7) / (error + 1e-7))


def empty_band(reference: np.ndarray, sample_rate: int) -> dict[str, float] | None:
    """The emptiest band of a reference, if it is so empty that only SDR can be trusted.

    Args:
      reference: [samples, channels], rounded as it is scored.
      sample_rate: in Hz.

    Returns:
      None, or {"from_hz", "to_hz", "db"}: the band and its mean power over the stem's, in dB.
    """
    from scipy import signal

    frame = min(2048, len(reference))
    hertz, power = signal.welch(reference, sample_rate, nperseg=frame, axis=0, detrend=False)
    power = power.mean(axis=1, dtype=np.float64)  # [bins]
    total = power.sum()
    if total == 0:  # museval says nothing about a silent stem
        return None
    bins = min(len(power), max(1, round(_BAND_HZ * frame / sample_rate)))
    bands = np.convolve(power, np.ones(bins), "valid")
    first = int(bands.argmin())
    # A floor for bands of exact zeros: far below what 16 bits can leave.
    db = 10 * np.log10(max(bands[first] / total, 1e-20))
    if db >= _EMPTY_DB:
        return None
    last = first + bins - 1
    return {"from_hz": float(hertz[first]), "to_hz": float(hertz[last]), "db": float(db)}


def score_track(
    references: np.ndarray,
    estimates: np.ndarray,
    stems: Sequence[str],
    sample_rate: int,
    output_dir: str | os.PathLike,
    key: str,
) -> None:
    """Scores one track and writes its JSON files, museval's own last: where it is, all are.

    Args:
      references: float32 [stems, samples, channels]; rounded to 16 bit here.
      estimates: float32 [stems, samples, channels].
      stems: their names.
      sample_rate: in Hz.
      output_dir: where the files go.
      key: "<split>/<track>".
    """
    from data_pipeline import sigsep

    output_dir = Path(output_dir)
    references = as_16_bit(references)
    empty = {
        stem: band
        for stem, reference in zip(stems, references, strict=True)
        if (band := empty_band(reference, sample_rate)) is not None
    }
    whole = dict(zip(stems, whole_track_sdr(references, estimates).tolist(), strict=True))
    scores = museval_scores(references, estimates, sample_rate)
    store = sigsep.load("museval").TrackStore(win=1.0, hop=1.0, track_name=Path(key).name)
    for i, stem in enumerate(stems):
        store.add_target(stem, {metric: scores[metric][i].tolist() for metric in METRICS})
    _write_whole(output_dir / _EMPTY_BANDS_DIR / f"{key}.json", _to_json(empty))
    _write_whole(output_dir / _WHOLE_TRACK_DIR / f"{key}.json", _to_json(whole))
    _write_whole(output_dir / f"{key}.json", store.json)


def summarise(output_dir: str | os.PathLike, tracks: Iterable[str] | None = None) -> dict[str, Any]:
    """The summary of scores: made from the JSON files in `output_dir` and nothing else.

    Args:
      output_dir: where `evaluate` wrote.
      tracks: "<split>/<track>" of each track; None takes all.

    Returns:
      JSON values; None stands where there is no score.
        "stems": stem -> {"SDR"|"SIR"|"SAR"|"ISR": {"median", "p25", "p75"}, dB, over tracks of the
          tracks' medians over frames; "tracks": scored in at least one second; "frames_scored";
          "frames"}.
        "whole_track_sdr": {"metric", "stems": stem -> {"median", "p25", "p75", "mean"}}.
        "never_scored": track -> its stems without a scored second.
        "empty_bands": track -> stem -> what `empty_band` found.
        "metric", "system", "split", "tracks": what was scored.
    """
    output_dir = Path(output_dir)
    if tracks is None:
        tracks = sorted(
            path.relative_to(output_dir).as_posix().removesuffix(".json")
            for path in output_dir.glob("*/*.json")
        )
    tracks = list(tracks)
    settings = json.loads((output_dir / _SETTINGS).read_text())
    frames: dict[str, dict[str, np.ndarray]] = {}  # track -> stem -> [frames, metrics]
    whole: dict[str, dict[str, float]] = {}
    empty: dict[str, dict[str, Any]] = {}
    for track in tracks:
        scores = json.loads((output_dir / f"{track}.json").read_text())
        frames[track] = {
            target["name"]: np.array(
                [[frame["metrics"][metric] for metric in METRICS] for frame in target["frames"]],
                float,
            )
            for target in scores["targets"]
        }
        whole[track] = json.loads((output_dir / _WHOLE_TRACK_DIR / f"{track}.json").read_text())
        bands = json.loads((output_dir / _EMPTY_BANDS_DIR / f"{track}.json").read_text())
        if bands:
            empty[track] = bands
    stems: dict[str, Any] = {}
    for stem in settings["stems"]:
        medians = np.array([_nanmedian(frames[track][stem]) for track in tracks])
        scored = [int(np.isfinite(frames[track][stem]).any(axis=1).sum()) for track in tracks]
        stems[stem] = {metric: _spread(medians[:, i]) for i, metric in enumerate(METRICS)}
        stems[stem]["tracks"] = sum(count > 0 for count in scored)
        stems[stem]["frames_scored"] = sum(scored)
        stems[stem]["frames"] = sum(len(frames[track][stem]) for track in tracks)
    never = {
        track: [stem for stem, scores in frames[track].items() if not np.isfinite(scores).any()]
        for track in tracks
    }
    return {
        "metric": MUSEVAL,
        "system": settings["system"],
        "split": settings["split"],
        "tracks": tracks,
        "stems": stems,
        "whole_track_sdr": {
            "metric": WHOLE_TRACK,
            "stems": {
                stem: _spread(values := np.array([whole[track][stem] for track in tracks]))
                | {"mean": float(values.mean())}
                for stem in settings["stems"]
            },
        },
        "never_scored": {track: names for track, names in never.items() if names},
        "empty_bands": empty,
    }


def table(summary: Mapping[str, Any]) -> str:
    """A summary as text for a terminal, a table for each measure and what to know about them."""
    tracks = len(summary["tracks"])
    width = max(len("stem"), *(len(stem) for stem in summary["stems"])) + 2

    def cell(spread: Mapping[str, float | None]) -> str:
        if spread["median"] is None:
            return "no score".ljust(26)
        low_high = f"[{spread['p25']:.2f}, {spread['p75']:.2f}]"
        return f"{spread['median']:7.2f} {low_high}".ljust(26)

    lines = [
        f"system: {summary['system']}; split: {summary['split']}; tracks: {tracks}",
        "In brackets: 25th and 75th percentile over tracks.",
        "",
        summary["metric"],
        "stem".ljust(width) + "".join(f"{metric:>7}".ljust(26) for metric in METRICS) + "scored",
    ]
    for stem, scores in summary["stems"].items():
        lines.append(
            stem.ljust(width)
            + "".join(cell(scores[metric]) for metric in METRICS)
            + f"{scores['tracks']} of {tracks} tracks,"
            f" {scores['frames_scored']} of {scores['frames']} s"
        )
    lines += ["", summary["whole_track_sdr"]["metric"]]
    for stem, spread in summary["whole_track_sdr"]["stems"].items():
        lines.append(stem.ljust(width) + cell(spread).rstrip())
    lines += [
        "",
        "museval gives no stem a score for a second in which any stem is silent, as reference or"
        " as estimate.",
    ]
    for track, names in summary["never_scored"].items():
        lines.append(f"Never scored: {track} ({', '.join(names)})")
    for track, bands in summary["empty_bands"].items():
        for stem, band in bands.items():
            lines.append(
                f"Warning: {track}: the reference {stem} is nearly empty from {band['from_hz']:.0f}"
                f" to {band['to_hz']:.0f} Hz ({band['db']:.0f} dB), which lowers SIR, ISR and SAR:"
                " trust this track's SDR alone."
            )
    return "\n".join(lines)


def _settings(
    model: str | os.PathLike, config: Config, data_dir: str, split: str, system: str
) -> dict[str, Any]:
    """What decides the scores: runs with equal settings may share an `output_dir`."""
    settings = {
        "system": system,
        "split": split,
        "data_dir": data_dir,
        "stems": {stem: list(config.files_of(stem)) for stem in config.model.stems},
        "sample_rate": config.model.sample_rate,
        "frame_length": config.model.frame_length,
        "hop_length": config.model.hop_length,
    }
    if system == "model":
        settings["model_sha256"] = _model_hash(Path(model))
    return settings


def _model_hash(model: Path) -> str:
    """SHA-256 of the files that decide a model's estimates, names included."""
    if (model / "saved_model.pb").exists():
        paths = [model / "saved_model.pb", *sorted((model / "variables").glob("*"))]
    else:
        from sccunet.training import BEST

        paths = [model / "config.json", model / BEST]
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():  # what is missing is for the loading of the model to report
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _check_settings(output_dir: Path, settings: Mapping[str, Any]) -> None:
    """Raises ConfigError if `output_dir` cannot take these scores."""
    if output_dir.exists() and not output_dir.is_dir():
        raise ConfigError(f"output_dir {output_dir}: found a file, expected a folder")
    path = output_dir / _SETTINGS
    if not path.exists():
        if found := next(output_dir.glob("*/*.json"), None):
            raise ConfigError(
                f"{found}: found scores without {_SETTINGS}, which says what was scored;"
                " choose another output_dir"
            )
        return
    try:
        before = json.loads(path.read_text())
    except ValueError:
        before = {}
    for field in {**settings, **before}:
        if before.get(field) != settings.get(field):
            raise ConfigError(
                f"{path}: found scores for {field} = {before.get(field)!r}, expected"
                f" {settings.get(field)!r}; choose another output_dir"
            )


def _default_jobs(tracks: Sequence[Any], config: Config) -> int:
    """Processes for which there are cores, and memory for the longest track in each."""
    samples = max((1 << track.frames.bit_length()) * track.channels for track in tracks)
    needed = samples * len(config.model.stems) * _MUSEVAL_BYTES
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, int(0.7 * memory) // needed))


def _score_tracks(
    tracks: Sequence[Any],
    config: Config,
    separate: System,
    output_dir: Path,
    jobs: int,
    finished: int,
) -> None:
    """Estimates here, one track after the other, and scores in processes; with a progress bar."""
    from data_pipeline.tracks import read_mixture, read_stems

    pool = concurrent.futures.ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    waiting: set[concurrent.futures.Future] = set()
    progress = tqdm(total=finished + len(tracks), initial=finished, desc="scoring", unit="track")

    def collect(until: int) -> None:
        while len(waiting) > until:
            done, _ = concurrent.futures.wait(
                waiting, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                waiting.remove(future)
                future.result()
                progress.update()

    try:
        with progress:
            for track in tracks:
                mixture, references = read_mixture(track, config), read_stems(track, config)
                estimates = separate(mixture, references)
                if not np.isfinite(estimates).all():
                    raise ConfigError(
                        f"track {track.name}: found estimates that are NaN or infinite, expected"
                        " numbers; the model is broken"
                    )
                with mock.patch.dict(os.environ, _ONE_THREAD):  # the new processes inherit it
                    waiting.add(
                        pool.submit(
                            score_track,
                            references,
                            estimates,
                            config.model.stems,
                            config.model.sample_rate,
                            output_dir,
                            f"{track.split}/{track.name}",
                        )
                    )
                collect(until=jobs)  # one track waits beside those being scored: bounded memory
            collect(until=0)
    except BrokenProcessPool as error:
        raise ConfigError(
            f"jobs: found a scoring process of {jobs} ended from outside, probably for want of"
            " memory; expected less at a time (what was scored is kept)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this process with its parent, which cannot say good-bye when it is killed."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _nanmedian(values: np.ndarray) -> np.ndarray:
    """Median over the first axis without the NaNs; NaN where there is nothing else."""
    columns = [column[np.isfinite(column)] for column in values.T]
    return np.array([np.median(column) if column.size else np.nan for column in columns])


def _spread(values: np.ndarray) -> dict[str, float | None]:
    """Median and quartiles of the finite ones of `values` [tracks]."""
    values = values[np.isfinite(values)]
    if not values.size:
        return {"median": None, "p25": None, "p75": None}
    p25, median, p75 = np.percentile(values, (25, 50, 75)).tolist()
    return {"median": median, "p25": p25, "p75": p75}


def _to_json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _write_whole(path: Path, text: str) -> None:
    """Writes a file that is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def _define_flags() -> None:
    """Not at import, as is usual: programs that import this one have flags of the same names."""
    flags.DEFINE_string("model", None, "Training workdir or exported SavedModel.", required=True)
    flags.DEFINE_string("data_dir", None, "Tracks in the MUSDB18-HQ layout.", required=True)
    flags.DEFINE_string("output_dir", None, "Where the scores are written.", required=True)
    flags.DEFINE_string("split", "test", "Which tracks to score.")
    flags.DEFINE_list("tracks", [], "Score these tracks instead, wherever they are.")
    flags.DEFINE_enum(
        "system",
        "model",
        SYSTEMS,
        "What to score: the model; the mixture as every stem; the mixture times the constant that"
        " suits the stem best; the ideal ratio mask.",
    )
    flags.DEFINE_integer(
        "jobs",
        None,
        "Tracks scored at the same time. Each takes a core, and 1.5 GB for every minute of four"
        " stereo stems. Default: as many as cores and memory allow.",
        lower_bound=1,
    )


def main(_: Sequence[str]) -> None:
    """Scores as the flags say, and prints the summary."""
    args = flags.FLAGS
    summary = evaluate(
        args.model,
        args.data_dir,
        args.output_dir,
        split=args.split,
        names=args.tracks,
        system=args.system,
        jobs=args.jobs,
    )
    print(table(summary))


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
