"""A fixed time for several trainings that follow one another."""

import collections
import contextlib
import statistics
import time
from collections.abc import Iterator


class TimeBudget:
    """Divides a time, which runs from the construction of this object, among trainings.

    Each training gets an equal share of what is left when it begins, so that whatever the earlier
    ones used more or less is made up for. A training ends when its share has no room for another
    step and a validation. How long these take is measured: other programs on the same cores may
    hold them up.

    Args:
      seconds: the time for all trainings.
    """

    def __init__(self, seconds: float):
        self._started = self._begun = time.monotonic()
        self._end = self._started + seconds
        self.share = seconds
        self._steps: collections.deque[float] = collections.deque(maxlen=10)
        self._validations: collections.deque[float] = collections.deque(maxlen=3)

    @property
    def spent(self) -> float:
        """Seconds since the construction."""
        return time.monotonic() - self._started

    def begin(self, trainings: int) -> None:
        """Begins a training, with its preparations; `trainings` are left, this one included."""
        self._begun = time.monotonic()
        self.share = max(0.0, self._end - self._begun) / trainings

    @property
    def spent_of_share(self) -> float:
        """Seconds since the training began."""
        return time.monotonic() - self._begun

    @property
    def progress(self) -> float:
        """How much of the training's share is over, from 0 to 1."""
        return min(1.0, self.spent_of_share / self.share) if self.share else 1.0

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Context manager that measures a step, with the wait for its batch."""
        before = time.monotonic()
        yield
        self._steps.append(time.monotonic() - before)

    @contextlib.contextmanager
    def validation(self) -> Iterator[None]:
        """Context manager that measures a validation."""
        before = time.monotonic()
        yield
        self._validations.append(time.monotonic() - before)

    def allows_a_step(self) -> bool:
        """Whether another step and a validation fit, as long as the last ones took on average.

        With the longest of them, most trainings would end too early.
        """
        ahead = sum(statistics.fmean(last) for last in (self._steps, self._validations) if last)
        return self.spent_of_share + ahead <= self.share
