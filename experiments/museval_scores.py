"""museval's scores, also of silent signals and under NumPy 2.4."""

import contextlib
import types
from unittest import mock

import numpy as np

_METRICS = ("SDR", "ISR", "SIR", "SAR")  # in museval's order


def museval_scores(
    references: np.ndarray, estimates: np.ndarray, sample_rate: int
) -> dict[str, np.ndarray]:
    """Computes museval's BSSEval v4 in frames of one second, as `museval.eval_mus_track` does.

    A second in which any reference or estimate is all zeros is NaN for every stem. If any of them
    is all zeros in the whole track, all scores are NaN.

    Args:
      references: [stems, samples, channels].
      estimates: [stems, samples, channels].
      sample_rate: in Hz.

    Returns:
      Metric -> float [stems, seconds], dB. An incomplete last second is not scored.
    """
    from data_pipeline import sigsep

    museval = sigsep.load("museval")
    # museval defines silence by the sum of the channels, and raises if a whole signal is silent.
    if any((signals.sum(axis=2) == 0).all(axis=1).any() for signals in (references, estimates)):
        stems, samples, _ = references.shape
        nothing = np.full((stems, max(1, samples // sample_rate)), np.nan)
        return dict.fromkeys(_METRICS, nothing)
    with contextlib.ExitStack() as stack:
        if not hasattr(np.linalg, "linalg"):
            # museval catches singular matrices under a name that NumPy 2.4 has removed.
            linalg = types.SimpleNamespace(LinAlgError=np.linalg.LinAlgError)
            stack.enter_context(mock.patch.object(np.linalg, "linalg", linalg, create=True))
        scores = museval.evaluate(references, estimates, win=sample_rate, hop=sample_rate)
    return dict(zip(_METRICS, scores, strict=True))
