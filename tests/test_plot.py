"""The program plot: the samples that are drawn, and the picture."""

import numpy as np
import pytest
from PIL import Image

from data_pipeline.audio_writer import write_wav
from data_pipeline.errors import AudioError
from experiments import plot
from experiments.reports import pictures, spectrograms
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.pictures import LOWEST_HZ

RATE = 8000


def write(folder, ending=".wav", **stems):
    for stem, samples in stems.items():
        encoding = "pcm24" if ending == ".flac" else "float32"
        write_wav(folder / f"{stem}{ending}", samples, RATE, encoding)


def pairs_of(truth_dir, estimates_dir, *part):
    part = plot.Part(*part)
    files = (plot.files_in(folder, part) for folder in (str(truth_dir), str(estimates_dir)))
    return {name: pair for name, *pair in plot.read_pairs(str(truth_dir), *files)}


@pytest.fixture
def track(tmp_path):
    """Noise as truth and estimates, stereo; a file of the mixture that is not their sum."""
    rng = np.random.default_rng(0)
    vocals, drums, bass, guess, rest = 0.1 * rng.standard_normal((5, 3 * RATE, 2))
    write(tmp_path / "truth", vocals=vocals, drums=drums, bass=bass, mixture=0 * vocals)
    write(tmp_path / "estimates", ".flac", vocals=guess, accompaniment=rest)
    return tmp_path, {
        "mixture": (vocals + drums + bass, guess + rest),
        "accompaniment": (drums + bass, rest),
        "vocals": (vocals, guess),
    }


@pytest.mark.parametrize(
    ("part", "first", "last"),
    [((), 0, 3 * RATE), ((0.5, 1.0), RATE // 2, 3 * RATE // 2), ((2.0, 9.0), 2 * RATE, 3 * RATE)],
)
def test_stems_and_their_sums(track, part, first, last):
    folder, expected = track
    pairs = pairs_of(folder / "truth", folder / "estimates", *part)
    assert pairs.keys() == expected.keys()
    for stem, pair in expected.items():
        for found, wave in zip(pairs[stem], pair, strict=True):
            np.testing.assert_allclose(found, wave[first:last].mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("has_mixture", [True, False])
def test_a_model_separates_the_mixture_or_the_sum_of_the_stems(track, monkeypatch, has_mixture):
    folder, expected = track
    if not has_mixture:
        (folder / "truth" / "mixture.wav").unlink()

    class Separator:
        config = Config(model=ModelConfig(stems=("vocals", "accompaniment"), sample_rate=RATE))

        @classmethod
        def load(cls, model):
            assert model == "RUN"
            return cls()

        def __call__(self, mixture, rate):
            assert rate == RATE
            return {"vocals": 0.25 * mixture, "accompaniment": 0.75 * mixture}

    monkeypatch.setattr("sccunet.separation.Separator", Separator)
    part = plot.Part(1.0, 1.0)
    truth = plot.files_in(str(folder / "truth"), part)
    estimates = plot.separated(truth, part, "RUN")
    mixture = expected["mixture"][0][RATE : 2 * RATE] * (not has_mixture)
    np.testing.assert_allclose(estimates["vocals"](), 0.25 * mixture, atol=1e-6)


def test_what_does_not_fit(tmp_path):
    truth, estimates = tmp_path / "truth", tmp_path / "estimates"
    write(truth, vocals=np.zeros((4000, 1)))
    with pytest.raises(AudioError, match="estimates: found no such folder, expected a folder"):
        pairs_of(truth, estimates)
    write(estimates, vocals=np.zeros((5000, 1)))
    with pytest.raises(AudioError, match=r"found 5000 samples at 8000 Hz, expected 4000 at 8000"):
        pairs_of(truth, estimates)
    write(estimates, ".flac", vocals=np.zeros((4000, 1)))
    with pytest.raises(AudioError, match=r"vocals\.wav: found beside vocals\.flac, expected one"):
        pairs_of(truth, estimates)
    (estimates / "vocals.wav").unlink()
    with pytest.raises(ConfigError, match=r"--start: found 0\.5 s, expected less than the 0\.5 s"):
        pairs_of(truth, estimates, 0.5)
    write(estimates, bass=np.zeros((4000, 1)))
    with pytest.raises(AudioError, match=r"truth: found no bass\.wav, expected the true stems"):
        pairs_of(truth, estimates)


@pytest.mark.parametrize(("rate", "hertz"), [(44_100, 41.2), (RATE, 1000.0)])
def test_a_tone_is_where_the_axis_says(rate, hertz):
    """Down to the lowest note of a bass, 41 Hz; a sine of full scale has 0 dB."""
    tone = np.sin(2 * np.pi * hertz / rate * np.arange(rate))
    image = spectrograms.levels(tone, rate)
    octaves = np.log2(rate / 2 / LOWEST_HZ)
    row, column = len(image), image[:, image.shape[1] // 2]
    found = LOWEST_HZ * 2 ** (octaves * (column.argmax() + 0.5) / row)
    assert found == pytest.approx(hertz, rel=0.06)
    assert column.max() == pytest.approx(0, abs=2)
    # An octave away it is dark.
    far = abs(np.arange(row) - column.argmax()) > row / octaves
    assert column[far].max() < -20


def test_long_and_short_signals_fit_a_picture():
    for samples in (1, 100, 5000, 200_000):
        image = spectrograms.levels(np.zeros(samples), RATE)
        assert image.shape[0] == 240
        assert 1 <= image.shape[1] <= 1000
        assert np.isfinite(image).all()
    # The first half is loud.
    noise = np.random.default_rng(0).standard_normal(1_000_000)
    noise[500_000:] *= 0.01
    image = spectrograms.levels(noise, RATE)
    half = image.shape[1] // 2
    assert image[:, : half - 2].mean() - image[:, half + 2 :].mean() == pytest.approx(40, abs=0.5)


def test_the_axis_has_true_times(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(spectrograms, "save", lambda figure, *_, **__: drawn.append(figure))
    image = np.full((240, 10), -30.0)
    pairs = dict.fromkeys(("mixture", "vocals"), (image, image))
    spectrograms.of_pairs(pairs, 44_100, 61.5, 20.0, tmp_path / "x.png")
    for axis in drawn[0].axes[:4]:
        assert axis.get_xlim() == (61.5, 81.5)
        np.testing.assert_allclose(axis.get_ylim(), np.log2([20, 22_050]))
    assert drawn[0].axes[0].get_yticklabels()[0].get_text() == "20"


def test_the_program(program, refusal, tmp_path):
    line = ("plot", f"--truth_dir={tmp_path}", f"--output={tmp_path}/new/x.png")
    message = "--estimates_dir: given, expected none beside --model"
    assert refusal(program(*line, "--model=RUN", "--estimates_dir=OUT")) == message
    write(tmp_path, vocals=0.1 * np.random.default_rng(0).standard_normal((RATE, 1)))
    done = program(*line, f"--estimates_dir={tmp_path}", "--start=0.5", "--duration=0.3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/new/x.png\n"
    assert Image.open(tmp_path / "new" / "x.png").size[0] > 1000


def test_the_users_settings_of_matplotlib_have_no_effect(monkeypatch):
    """As in a matplotlibrc that asks for LaTeX, which may not be installed."""
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    pictures.load_pyplot()
    assert not matplotlib.rcParams["text.usetex"]
