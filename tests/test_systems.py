"""Systems to score: oracles against closed forms, and estimates of other software."""

import concurrent.futures

import numpy as np
import pytest
from scipy import signal

from data_pipeline.audio_writer import write_wav
from data_pipeline.wav import read_wav
from experiments import evaluating
from experiments.baselines.system import pick_stems
from experiments.baselines.systems import GROUPS, SYSTEMS, load_system
from experiments.track_metrics import whole_track_sdr
from sccunet.config import Config, ConfigError, ModelConfig, UserError

RATE = 8000
_STEMS = ("vocals", "drums", "bass")
_CONFIG = Config(model=ModelConfig(stems=_STEMS, sample_rate=RATE))


def noise(seed, samples, channels=2):
    return np.random.default_rng(seed).standard_normal((samples, channels)).astype(np.float32)


def estimate(system, references, mixture=None, config=_CONFIG, **options):
    mixture = references.sum(axis=0) if mixture is None else mixture
    return load_system(system, config, **options).separate(mixture, references, "test/x")


@pytest.mark.parametrize("samples", [1, 1000, 5001])
@pytest.mark.parametrize("system", ["irm", "ibm"])
def test_ideal_masks_sum_to_the_mixture(system, samples):
    references = np.stack([noise(i, samples) for i in range(3)])
    estimates = estimate(system, references)
    assert estimates.shape == references.shape
    assert estimates.dtype == np.float32
    np.testing.assert_allclose(estimates.sum(axis=0), references.sum(axis=0), atol=1e-5)


@pytest.mark.parametrize("samples", [1, 1000, 5001])
def test_shapes_of_the_wiener_filter(samples):
    references = np.stack([noise(i, samples) for i in range(3)])
    assert estimate("mwf", references).shape == references.shape


def masked(references, mask):
    """Applies masks of magnitudes [stems, bins, frames] to a mono mixture, by SciPy's stft."""
    options = {"nperseg": 2048, "noverlap": 2048 - 512, "window": "hann"}
    signals = np.append(references, [references.sum(axis=0)], axis=0)[..., 0]
    *_, spectra = signal.stft(signals, **options)
    *_, stems = signal.istft(mask(np.abs(spectra[:-1])) * spectra[-1], **options)
    return stems[:, : references.shape[1], None]


def test_masks_follow_their_formulas():
    references = np.stack([(i + 1) * noise(i, 4096 * 3, 1) for i in range(3)])
    middle = slice(2048, -2048)  # the two transforms pad differently

    def ratio(magnitude):
        return magnitude / magnitude.sum(axis=0)

    def binary(magnitude):
        return magnitude == magnitude.max(axis=0)

    def wiener(magnitude):  # for a single channel
        return magnitude**2 / (magnitude**2).sum(axis=0)

    for system, mask in {"irm": ratio, "ibm": binary, "mwf": wiener}.items():
        expected = masked(references, mask)[:, middle]
        found = estimate(system, references)[:, middle]
        np.testing.assert_allclose(found, expected, atol=2e-3 if system == "mwf" else 1e-5)


def test_silence_stays_silent():
    references = np.zeros((3, 5000, 2), np.float32)
    for system in (name for name, kind in SYSTEMS.items() if kind.group in ("reference", "oracle")):
        np.testing.assert_array_equal(estimate(system, references), references)


def test_wiener_filter_separates_two_sources_only_by_their_directions():
    """Equal spectra, two directions, two microphones: impossible for masking oracles."""
    places = np.array([[1.0, 0.3], [-0.4, 1.0]], np.float32)
    references = np.stack([noise(i, 4 * RATE, 1) * places[i] for i in range(2)])
    config = Config(model=ModelConfig(stems=("vocals", "other"), sample_rate=RATE))
    found = {
        system: whole_track_sdr(references, estimate(system, references, config=config))
        for system in ("irm", "mwf")
    }
    assert (found["irm"] < 15).all()
    assert (found["mwf"] > 40).all()


def test_oracles_are_ranked_as_in_sisec():
    """Wiener filter, ratio mask, scaled mixture, mixture."""
    rng = np.random.default_rng(0)
    references = np.stack(
        [
            signal.lfilter([1], [1, -pole], rng.standard_normal((4 * RATE, 2)), axis=0)
            for pole in (0.9, 0.1, -0.9)
        ]
    ).astype(np.float32)
    scores = [
        whole_track_sdr(references, estimate(system, references)).mean()
        for system in ("mwf", "irm", "scaled", "mixture")
    ]
    assert scores == sorted(scores, reverse=True)


def test_stems_of_another_system():
    config = Config(
        model=ModelConfig(stems=("vocals", "accompaniment")),
        sources={"accompaniment": ("drums", "bass")},
    )
    three = {stem: noise(i, 100) for i, stem in enumerate(("bass", "drums", "vocals"))}
    found = pick_stems(three, config)
    np.testing.assert_array_equal(found, [three["vocals"], three["drums"] + three["bass"]])
    two = {"accompaniment": three["bass"], "vocals": three["vocals"]}
    np.testing.assert_array_equal(pick_stems(two, config), [two["vocals"], two["accompaniment"]])
    with pytest.raises(ConfigError, match=r"stem drums: found a system with accompaniment, vocals"):
        pick_stems(two, _CONFIG)


def test_missing_weights_are_reported():
    for system, kind in SYSTEMS.items():
        if kind.weights:
            with pytest.raises(ConfigError, match=f"weights: not given, expected .* of {system}"):
                load_system(system, _CONFIG)
        else:
            with pytest.raises(
                ConfigError, match=f"weights: found 'x', expected none for {system}"
            ):
                load_system(system, _CONFIG, model="run", weights="x")
    assert {kind.group for kind in SYSTEMS.values()} == set(GROUPS)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Scores in a thread: each new process would import museval first."""

    def pool(jobs, context, initializer):
        return concurrent.futures.ThreadPoolExecutor(1)

    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", pool)


def evaluate(data_dir, output_dir, **options):
    options = {"config": _CONFIG, "jobs": 1, **options}
    return evaluating.evaluate(evaluating.Options(data_dir, output_dir, **options))


@pytest.fixture
def songs(tmp_path):
    """Two tracks, and estimates of them: the truth with its amplitude reduced by a tenth."""
    for name in ("a", "b"):
        for i, stem in enumerate(_STEMS):
            samples = 0.1 * noise(ord(name) + i, 4 * RATE, 1)
            write_wav(tmp_path / "data" / "test" / name / f"{stem}.wav", samples, RATE)
            path = tmp_path / "theirs" / "test" / name / f"{stem}.wav"
            write_wav(path, 0.9 * samples, RATE, "float32")
    return tmp_path


def test_folder_of_estimates(songs):
    """As museval writes them, or the folder of one split; from a config, without a model."""
    for split in ("", "test"):
        summary = evaluate(
            songs / "data",
            songs / f"scores_{split}",
            names=["a"],
            system="folder",
            weights=songs / "theirs" / split,
        )
        for stem in _STEMS:
            median = summary["whole_track_sdr"]["stems"][stem]["median"]
            assert median == pytest.approx(20, abs=0.01)


def test_folder_of_estimates_that_do_not_fit(songs):
    def score(weights, names=()):
        data, scores = songs / "data", songs / "scores"
        evaluate(data, scores, names=names, system="folder", weights=weights)

    theirs = songs / "theirs"
    with pytest.raises(UserError, match=r"nowhere/test/a: found no such folder, expected the es"):
        score(songs / "nowhere")
    write_wav(theirs / "test" / "b" / "bass.wav", noise(0, RATE, 1), RATE)
    with pytest.raises(UserError, match=r"found \(32000, 1\) .*, expected \(8000, 1\) as in bass"):
        score(theirs, ["b"])
    (theirs / "test" / "b" / "bass.wav").unlink()
    with pytest.raises(UserError, match="stem bass: found a system with drums, vocals"):
        score(theirs, ["b"])
    write_wav(theirs / "test" / "a" / "bass.wav", noise(0, 4 * RATE, 1), 2 * RATE)
    with pytest.raises(UserError, match=r"bass\.wav: found 16000 Hz, expected 8000 Hz"):
        score(theirs, ["a"])
    (theirs / "test" / "a" / "bass.flac").touch()
    with pytest.raises(UserError, match=r"bass\.wav: found beside bass\.flac, expected one file"):
        score(theirs, ["a"])
    (theirs / "test" / "a" / "bass.flac").unlink()
    # A folder without scores can be used; one with scores cannot.
    (theirs / "test" / "a" / "bass.wav").unlink()
    write_wav(theirs / "test" / "a" / "bass.wav", noise(0, 4 * RATE, 1), RATE)
    score(theirs, ["a"])
    with pytest.raises(ConfigError, match=r"found scores for weights = .*; choose another"):
        score(theirs / "test", ["a"])
    write_wav(theirs / "test" / "a" / "bass.wav", noise(1, 4 * RATE, 1), RATE)
    with pytest.raises(ConfigError, match=r"found scores for weights_sha256 = "):
        score(theirs, ["a"])


def test_excerpt_is_the_middle(songs):
    """Only there, the estimates are close to the truth."""
    folder = songs / "theirs" / "test" / "a"
    for stem in _STEMS:
        samples = read_wav(songs / "data" / "test" / "a" / f"{stem}.wav")
        gain = np.full((4 * RATE, 1), 0.5)
        gain[RATE : 3 * RATE] = 0.99
        write_wav(folder / f"{stem}.wav", gain * samples, RATE, "float32")
    theirs = {"names": ["a"], "system": "folder", "weights": songs / "theirs"}
    for excerpt, seconds, expected in ((2.0, 2, 40), (100.0, 4, 9)):
        summary = evaluate(songs / "data", songs / f"{excerpt}", excerpt=excerpt, **theirs)
        for stem in _STEMS:
            whole = summary["whole_track_sdr"]["stems"][stem]["median"]
            assert whole == pytest.approx(expected, abs=0.5)
            assert summary["stems"][stem]["frames"] == seconds
    with pytest.raises(ConfigError, match=r"for excerpt_seconds = 2\.0, expected 3\.0"):
        evaluate(songs / "data", songs / "2.0", excerpt=3.0, **theirs)
    irm = {"names": ["a"], "system": "irm"}
    short = evaluate(songs / "data", songs / "irm", excerpt=2.0, **irm)
    assert short["stems"]["vocals"]["frames"] == 2
