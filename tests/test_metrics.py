"""The validation's metrics."""

import math

import numpy as np
import pytest

from sccunet.metrics import SDR


def test_sdr_pools_energies():
    """A long loud crop counts more than a short quiet one, as in one recording of both."""
    sdr = SDR(("a", "b"))
    loud, quiet = np.ones((2, 2, 1, 4), np.float32), np.full((1, 2, 1, 4), 0.1, np.float32)
    sdr.update_state(loud, 0.9 * loud)
    sdr.update_state(quiet, quiet * np.float32([[[[0.5]], [[0.0]]]]))
    found = {name: float(value) for name, value in sdr.result().items()}
    energies = 8 + 0.04
    assert found["a_sdr"] == pytest.approx(10 * math.log10(energies / (0.08 + 0.01)), rel=1e-5)
    assert found["b_sdr"] == pytest.approx(10 * math.log10(energies / (0.08 + 0.04)), rel=1e-5)
    assert found["sdr"] == pytest.approx((found["a_sdr"] + found["b_sdr"]) / 2)
    sdr.reset_state()
    sdr.update_state(loud, loud * np.float32([[[[1.0]], [[0.0]]]]))
    assert float(sdr.result()["b_sdr"]) == pytest.approx(0)
    assert 100 < float(sdr.result()["a_sdr"]) < math.inf


def test_a_stem_without_any_sound_has_no_sdr():
    sdr = SDR(("a", "b"))
    truth = np.float32([[[[1.0, 1.0]], [[0.0, 0.0]]]])
    sdr.update_state(truth, np.full_like(truth, 0.5))
    found = {name: float(value) for name, value in sdr.result().items()}
    assert math.isnan(found["b_sdr"])
    assert found["sdr"] == found["a_sdr"] == pytest.approx(20 * math.log10(2), rel=1e-5)
