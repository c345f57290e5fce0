"""The program plot: the samples that are drawn, and the picture."""

import numpy as np
import pytest

from data_pipeline import audio
from data_pipeline.wav import AudioError
from experiments import plot

RATE = 8000


def write(folder, **stems):
    for stem, samples in stems.items():
        audio.write_wav(folder / f"{stem}.wav", samples, RATE, "float32")


def test_middles_of_stems_and_of_their_sums(tmp_path):
    rng = np.random.default_rng(0)
    vocals, drums, bass, guess, rest = rng.standard_normal((5, 3 * RATE, 2)).astype(np.float32)
    # The mixture's file is not read: the stems may be a part of it.
    write(tmp_path / "truth", vocals=vocals, drums=drums, bass=bass, mixture=0 * vocals)
    write(tmp_path / "estimates", vocals=guess, accompaniment=rest)
    pairs, rate = plot.read_stems(tmp_path / "truth", tmp_path / "estimates", seconds=1.0)
    assert rate == RATE
    expected = {
        "mixture": (vocals + drums + bass, guess + rest),
        "accompaniment": (drums + bass, rest),
        "vocals": (vocals, guess),
    }
    assert list(pairs) == list(expected)
    for stem, pair in expected.items():
        for found, wave in zip(pairs[stem], pair, strict=True):
            np.testing.assert_allclose(found, wave[RATE : 2 * RATE].mean(axis=1), atol=1e-6)


def test_what_does_not_fit(tmp_path):
    truth, estimates = tmp_path / "truth", tmp_path / "estimates"
    with pytest.raises(AudioError, match=r"estimates: found no \.wav files, expected one per stem"):
        plot.read_stems(truth, estimates)
    write(estimates, vocals=np.zeros((5000, 1)))
    with pytest.raises(AudioError, match=r"truth: found no vocals\.wav, expected the true stems"):
        plot.read_stems(truth, estimates)
    write(truth, vocals=np.zeros((4000, 1)))
    with pytest.raises(AudioError, match=r"found 4000 samples at 8000 Hz, expected 5000 at 8000"):
        plot.read_stems(truth, estimates)


def test_the_program(program, refusal, tmp_path):
    line = ("plot", f"--truth_dir={tmp_path}", f"--output={tmp_path}/new/x.png")
    done = program(*line, f"--estimates_dir={tmp_path}/nothing")
    assert refusal(done) == f"{tmp_path}/nothing: found no .wav files, expected one per stem"
    write(tmp_path, vocals=np.random.default_rng(0).standard_normal((RATE, 1)))
    done = program(*line, f"--estimates_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/new/x.png\n"
    assert (tmp_path / "new" / "x.png").read_bytes().startswith(b"\x89PNG")
