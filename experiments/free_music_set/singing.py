"""Sings speech to a melody with the WORLD vocoder (Morise, Yokomori, Ozawa 2016).

A real voice's timbre, consonants and range, not a real performance: each syllable takes one note.
Consonants keep their speed; the middle of the vowel is held.
"""

import dataclasses
import itertools
import zlib
from collections.abc import Sequence

import numpy as np

from experiments.free_music_set.melody import melody
from experiments.free_music_set.speech import RATE

_HOP = 0.005  # seconds between WORLD's frames
_LOWEST, _HIGHEST = 65, 600  # Hz, of speech
SPEECH = 75  # seconds that a take needs, at most
_SONG = 60  # seconds, at least
_LEAST_VOICED = 400  # frames: 2 s
_FLOOR = 1e-16  # power of silence
_GLIDE = 0.08  # seconds between two notes
_ONSET, _RELEASE = 24, 14  # most frames of consonants before and after a vowel
_HELD = 12  # frames of a vowel that keep their speed at both of its ends
_BACKING = (-7, -3, 2, 2, 4, 7)  # steps of the scale from the lead

Notes = Sequence[tuple[int | None, float]]


@dataclasses.dataclass(frozen=True)
class Voice:
    """Analysed speech.

    Attributes:
      speech: its samples.
      f0: fundamental frequency in Hz, 0 where there is none, float64 `[frames]`.
      envelope: WORLD's spectral envelope (power), float64 `[frames, bins]`.
      syllables: first frame, frame after the last, and loudest frame of each.
    """

    speech: np.ndarray
    f0: np.ndarray
    envelope: np.ndarray
    syllables: Sequence[tuple[int, int, int]]


@dataclasses.dataclass(frozen=True)
class Verse:
    """Speech in the rhythm of a song, still without pitches.

    Attributes:
      envelope, noise: WORLD's spectral envelope (power) and aperiodicity, float64 `[frames, bins]`.
      unvoiced: frames in which no pitch is heard, bool `[frames]`.
      lengths: frames of each note.
    """

    envelope: np.ndarray
    noise: np.ndarray
    unvoiced: np.ndarray
    lengths: Sequence[int]


def take(speech: np.ndarray, speaker: str, number: int) -> np.ndarray:
    """Sings one song; speaker and number determine everything that is drawn.

    Args:
      speech: mono speech at 44.1 kHz, float64 `[samples]`.
      speaker, number: name of the speaker, and which of their songs it is.

    Returns:
      About a minute of song, float64 `[samples, 2]`; nothing if there is too little voiced speech.
    """
    rng = np.random.default_rng(zlib.crc32(f"{speaker} {number}".encode()))
    voice = analysed(speech + 1e-5 * rng.standard_normal(len(speech)))
    if voice is None:
        return np.zeros((0, 2))
    spoken = 69 + 12 * np.log2(np.median(voice.f0[voice.f0 > 0]) / 440)
    tune = melody(rng, spoken + rng.uniform(0, 9), _SONG)
    formants, vibrato = rng.uniform(0.88, 1.14), rng.uniform(10, 70)
    verse = spoken_to(voice, tune.notes())
    lead = sing(verse, tune.notes(), rng, vibrato, formants)
    song = room(lead / np.abs(lead).max(), rng)
    if rng.random() < 0.3:
        for _ in range(rng.integers(1, 3)):
            steps = _BACKING[rng.integers(len(_BACKING))]
            other = sing(verse, tune.notes(steps), rng, vibrato, formants * rng.uniform(0.95, 1.05))
            level = 10 ** (rng.uniform(-12, -4) / 20) / np.abs(other).max()
            frames = min(len(other), len(song))
            pan = rng.uniform(0.2, 0.8)
            both = np.sqrt(2 * np.array([1 - pan, pan])) * level * other[:frames, None]
            song[:frames] += both
    return song * (0.7 / np.abs(song).max())


def analysed(speech: np.ndarray) -> Voice | None:
    """Analyses mono speech, float64 `[samples]`; None if too little of it is voiced."""
    import pyworld

    f0, times = pyworld.dio(speech, RATE, _LOWEST, _HIGHEST, frame_period=_HOP * 1000)
    f0 = pyworld.stonemask(speech, f0, times, RATE)
    if (f0 > 0).sum() < _LEAST_VOICED:
        return None
    envelope = pyworld.cheaptrick(speech, f0, times, RATE)
    parts = [s for s in _syllables(f0, envelope) if (f0[s[0] : s[1]] > 0).any()]
    return Voice(speech, f0, envelope, parts) if parts else None


def _syllables(f0: np.ndarray, envelope: np.ndarray) -> list[tuple[int, int, int]]:
    """Finds peaks of the voiced energy, and the valleys between them."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks

    energy = 10 * np.log10(envelope[:, 3:].sum(axis=1) + 1e-12)
    smooth = gaussian_filter1d(np.where(f0 > 0, energy, energy.min()), 4)
    peaks, _ = find_peaks(smooth, height=smooth.max() - 28, distance=18, prominence=2)
    valleys = [a + int(smooth[a:b].argmin()) for a, b in itertools.pairwise(peaks)]
    edges = [0, *valleys, len(f0)]
    return [(edges[i], edges[i + 1], int(peak)) for i, peak in enumerate(peaks)]


def spoken_to(voice: Voice, notes: Notes) -> Verse:
    """Gives each note one syllable of speech, as long as the note.

    Args:
      voice: analysed speech.
      notes: MIDI number (None: rest) and seconds of each note; the number does not matter.
    """
    import pyworld
    from scipy.ndimage import gaussian_filter1d

    source, unvoiced, turn = [], [], 0
    for note, seconds in notes:
        length = round(seconds / _HOP)
        if note is None:
            piece, breath = np.zeros(length, int), np.ones(length, bool)
        else:
            syllable = voice.syllables[turn % len(voice.syllables)]
            piece, breath = _stretched(voice.f0, syllable, length)
            turn += 1
        source.append(piece)
        unvoiced.append(breath)
    lengths = [len(piece) for piece in source]
    frames, held = np.concatenate(source), ~np.concatenate(unvoiced)
    # The slowest step for each frame, and many frames of the speech are not used.
    used, places = np.unique(frames, return_inverse=True)
    noise = pyworld.d4c(voice.speech, voice.f0[used], used * _HOP, RATE)[places]
    envelope = voice.envelope[frames]
    envelope[np.repeat([note is None for note, _ in notes], lengths)] = _FLOOR
    # Held vowels move slowly through their frames; smoothing hides the steps.
    smooth = np.exp(gaussian_filter1d(np.log(envelope + _FLOOR), 1.5, axis=0))
    envelope[held] = smooth[held]
    noise[held] = gaussian_filter1d(noise, 1.5, axis=0)[held]
    return Verse(envelope, noise, ~held, lengths)


def sing(
    verse: Verse, notes: Notes, rng: np.random.Generator, vibrato: float, formants: float
) -> np.ndarray:
    """Sings a verse.

    Args:
      verse: from `spoken_to`, of notes with the same rests and lengths.
      notes: MIDI number (None: rest) and seconds of each note.
      rng: draws drift and vibrato's phase.
      vibrato: depth in cents.
      formants: above 1 makes the vocal tract shorter.

    Returns:
      Mono, float64 `[samples]`.
    """
    import pyworld

    numbers = [note or 0.0 for note, _ in notes]
    ends = np.cumsum(verse.lengths)
    spans = [
        (end - length, end)
        for end, length, number in zip(ends, verse.lengths, numbers, strict=True)
        if number
    ]
    midi = np.repeat(numbers, verse.lengths)
    pitch = np.where(verse.unvoiced, 0, _pitches(midi, spans, rng, vibrato))
    envelope = np.ascontiguousarray(_warped(verse.envelope, formants))
    return pyworld.synthesize(pitch, envelope, verse.noise, RATE, _HOP * 1000)


def _stretched(
    f0: np.ndarray, syllable: tuple[int, int, int], frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the frames of speech that give a syllable a length, and which are unvoiced."""
    start, end, nucleus = syllable
    speech = np.arange(start, end)
    (voiced,) = np.nonzero(f0[start:end] > 0)
    onset = speech[: voiced[0]][-_ONSET:]
    core = speech[voiced[0] : voiced[-1] + 1]
    release = speech[voiced[-1] + 1 :][:_RELEASE]
    length = max(6, frames - len(onset) - len(release))
    last = len(core) - 1
    centre = min(max(nucleus - core[0], 1), max(1, last - 1))
    attack, tail = min(centre, _HELD), max(0, min(last - centre, _HELD))
    sway = np.sin(np.linspace(0, 3 * np.pi, max(1, length - attack - tail)))
    index = np.concatenate(
        [
            np.arange(centre - attack, centre),
            np.clip(np.round(centre + 4 * sway), 0, last),
            np.arange(len(core) - tail, len(core)),
        ]
    )[:length]
    core = core[np.clip(index.astype(int), 0, last)]
    parts = (onset, core, release)
    unvoiced = np.repeat([True, False, True], [len(part) for part in parts])
    return np.concatenate(parts)[:frames], unvoiced[:frames]


def _pitches(
    midi: np.ndarray, spans: Sequence[tuple[int, int]], rng: np.random.Generator, cents: float
) -> np.ndarray:
    """Returns Hz of each frame: glides, vibrato that sets in after 0.2 s, and a little drift.

    Args:
      midi: MIDI number of each frame; 0 is a rest.
      spans: first frame of each note, and the frame after its last.
      rng: draws the drift and the vibrato's phase.
      cents: the vibrato's depth.
    """
    frames, width = np.arange(len(midi)), round(_GLIDE / _HOP) | 1
    window = np.hanning(width + 2)[1:-1]
    steps = np.interp(frames, frames[midi > 0], midi[midi > 0])  # through rests
    padded = np.pad(steps, width // 2, mode="edge")
    glide = np.convolve(padded, window / window.sum(), "valid")
    depth = np.zeros(len(midi))
    for first, end in spans:
        depth[first:end] = np.clip((np.arange(end - first) * _HOP - 0.22) / 0.3, 0, 1) * cents
    rate = 5.5 + 0.35 * np.sin(2 * np.pi * 0.21 * frames * _HOP + rng.uniform(0, 2 * np.pi))
    slow = np.hanning(21)
    drift = np.convolve(rng.normal(0, 25, len(midi)), slow / slow.sum(), "same")
    bend = depth * np.sin(2 * np.pi * np.cumsum(rate) * _HOP) + drift
    return 440 * 2 ** ((glide - 69 + bend / 100) / 12)


def _warped(envelope: np.ndarray, formants: float) -> np.ndarray:
    """Stretches spectra `[frames, bins]` along frequency, by linear interpolation."""
    last = envelope.shape[1] - 1
    places = np.minimum(np.arange(last + 1) / formants, last)
    low = np.minimum(places.astype(int), last - 1)
    share = places - low
    return envelope[:, low] * (1 - share) + envelope[:, low + 1] * share


def room(mono: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds reverberation, and now and then a doubled voice: float64 `[samples, 2]`."""
    from scipy.signal import fftconvolve

    length = round(rng.uniform(0.2, 1.2) * RATE)
    damping = np.exp(-np.arange(length) / RATE * rng.uniform(4, 12))
    decay = rng.standard_normal((length, 2)) * damping[:, None]
    decay /= np.sqrt((decay**2).sum(axis=0))
    wet = fftconvolve(mono[:, None], decay, axes=0)[: len(mono)]
    stereo = mono[:, None] + wet * rng.uniform(0, 0.3)
    if rng.random() < 0.3:
        delay = round(rng.uniform(0.01, 0.03) * RATE)
        stereo[delay:] += 0.5 * mono[:-delay, None] * rng.uniform(0.3, 1, (1, 2))
    return stereo
