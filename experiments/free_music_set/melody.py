"""Makes up melodies to sing: phrases of notes in a scale."""

import dataclasses
from collections.abc import Sequence

import numpy as np

_SCALES = (
    (0, 2, 4, 5, 7, 9, 11),  # major
    (0, 2, 3, 5, 7, 8, 10),  # minor
    (0, 2, 3, 5, 7, 9, 10),  # Dorian
    (0, 2, 4, 7, 9),  # pentatonic
    (0, 3, 5, 7, 10),
)
_RANGE = 6  # steps of the scale from the middle of the voice, up and down
_SHORTEST, _LONGEST = 0.12, 3.0  # seconds of a note


@dataclasses.dataclass(frozen=True)
class Style:
    """How a melody moves.

    Attributes:
      beats: lengths of notes to draw from.
      leap: largest interval within a phrase, in steps of the scale.
      motif: probability that a note repeats the phrase's motif of three notes.
      tempo: least and most beats per minute.
    """

    beats: tuple[float, ...]
    leap: int
    motif: float
    tempo: tuple[float, float]


STYLES = (
    Style((0.5, 0.5, 1, 1, 1, 1.5, 2, 3), 4, 0.6, (70, 150)),  # a tune
    Style((0.25, 0.25, 0.5, 0.5, 0.5, 1), 1, 0.3, (80, 130)),  # patter, almost spoken
    Style((1, 2, 2, 3, 4), 5, 0.3, (60, 110)),  # long notes
    Style((0.5, 0.5, 0.5, 1), 3, 0.9, (100, 160)),  # a hook, again and again
)


@dataclasses.dataclass(frozen=True)
class Melody:
    """Notes of a melody.

    Attributes:
      scale: MIDI numbers of the scale, rising.
      places: index of each note in `scale`; None is a rest.
      seconds: length of each note.
    """

    scale: np.ndarray
    places: Sequence[int | None]
    seconds: Sequence[float]

    def notes(self, steps: int = 0) -> list[tuple[int | None, float]]:
        """Returns MIDI number (None: rest) and seconds of each note, some steps higher."""
        last = len(self.scale) - 1
        pitches = [
            None if place is None else int(self.scale[min(max(place + steps, 0), last)])
            for place in self.places
        ]
        return list(zip(pitches, self.seconds, strict=True))


def melody(rng: np.random.Generator, centre: float, seconds: float) -> Melody:
    """Makes up a melody.

    Args:
      rng: draws style, scale, tempo and notes.
      centre: MIDI number around which it moves.
      seconds: its least length.
    """
    style, scale = STYLES[rng.integers(len(STYLES))], _SCALES[rng.integers(len(_SCALES))]
    root = int(rng.integers(12))
    ladder = np.array([note for note in range(24, 97) if (note - root) % 12 in scale])
    home = place = int(np.abs(ladder - centre).argmin())
    beat, places, lengths = 60 / rng.uniform(*style.tempo), [], []

    def note() -> tuple[int, float]:
        return int(rng.integers(-style.leap, style.leap + 1)), float(rng.choice(style.beats))

    while sum(lengths) < seconds:
        motif = [note() for _ in range(3)]
        for k in range(rng.integers(4, 13)):
            step, beats = motif[k % 3] if rng.random() < style.motif else note()
            place = min(max(place + step, home - _RANGE, 0), home + _RANGE, len(ladder) - 1)
            places.append(place)
            lengths.append(min(max(beats * beat, _SHORTEST), _LONGEST))
        places.append(None)
        lengths.append(float(rng.choice((0.25, 0.5, 1, 2))) * beat)
    return Melody(ladder, places, lengths)
