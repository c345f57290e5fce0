"""Instruments of the synthetic set: drums, bass, chords and a sung voice, and their room.

Each instrument draws its sound and its part from a NumPy random generator `rng` and plays a whole
song, float [samples, 2] at an arbitrary level. `synthetic` mixes them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import scipy.signal

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10))
_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 0, 4), (0, 2, 3, 4), (0, 6, 5, 6))
# Rhythms are the starts of notes, in sixteenths of a 4/4 bar.
_BASS_RHYTHMS = ((0, 4, 8, 12), (0, 6, 8, 14), (0, 2, 4, 6, 8, 10, 12, 14), (0, 3, 6, 8, 11, 14))
_CHORD_RHYTHMS = ((0,), (0, 8), (0, 6, 12), (0, 4, 8, 12), (0, 3, 8, 11))
_VOICE_RHYTHMS = (
    *((0, 4, 8, 12), (0, 6, 8, 12), (0, 2, 4, 8), (0, 3, 6, 8, 12)),
    *((0, 8, 12), (0, 2, 4, 6, 8, 12), (0, 4, 6, 10)),
)
_KICKS = ((0, 8), (0, 6, 8), (0, 4, 8, 12), (0, 7, 10), (0, 3, 8, 11))
_SNARES = ((4, 12), (4, 12, 15), (8,), (4, 10, 12))
# Formant frequencies (Hz) of a, e, i, o, u; the usual textbook values of a male voice.
_VOWELS = np.array(
    [
        (750, 1150, 2500, 3500),
        (500, 1750, 2500, 3500),
        (300, 2200, 2950, 3600),
        (480, 850, 2450, 3400),
        (330, 700, 2300, 3400),
    ],
    float,
)
Timbre = Callable[[float, float], np.ndarray]  # (Hz, seconds) -> [samples], of peak about 1


@dataclasses.dataclass(frozen=True)
class Song:
    """What all instruments of a track share."""

    rate: int  # Hz
    samples: int
    step: float  # length of a sixteenth, in samples
    swing: float  # how late every other sixteenth is, in sixteenths
    root: int  # MIDI note of degree 0 in the bass
    scale: tuple[int, ...]  # semitones over the root
    progression: tuple[int, ...]  # degree of each bar's chord, repeated

    @property
    def bars(self) -> int:
        return math.ceil(self.samples / (16 * self.step))

    def chord(self, bar: int) -> int:
        return self.progression[bar % len(self.progression)]

    def at(self, bar: int, step: int) -> int:
        """The sample at which sixteenth `step` of `bar` starts."""
        return round((16 * bar + step + self.swing * (step % 2)) * self.step)

    def seconds(self, steps: float) -> float:
        return steps * self.step / self.rate

    def note(self, degree: int) -> int:
        """The MIDI note of a degree of the scale; degrees continue into other octaves."""
        octave, index = divmod(degree, len(self.scale))
        return self.root + 12 * octave + self.scale[index]


def draw_song(rate: int, samples: int, rng) -> Song:
    """Draws a song's key, tempo and progression; `rate` in Hz."""
    return Song(
        rate=rate,
        samples=samples,
        step=rate * 60 / rng.uniform(80, 150) / 4,
        swing=rng.choice([0.0, rng.uniform(0.1, 0.35)]),
        root=int(rng.integers(28, 40)),  # E1 to D#2
        scale=_choose(rng, _SCALES),
        progression=_choose(rng, _PROGRESSIONS),
    )


def vocals(song: Song, rng) -> np.ndarray:
    """Sings: glottal pulses and breath through moving formants, with consonants, [samples, 2]."""
    rate, samples = song.rate, song.samples
    notes = _melody(song, rng)
    size = 2 ** round(math.log2(0.023 * rate))  # a formant filter's frame: 1024 at 44.1 kHz
    hop = size // 4
    pitch, gate = np.full(samples, float(notes[0][2])), np.zeros(samples)
    ramp, consonants = np.zeros(samples), np.zeros(samples)
    vowels = np.zeros((4, samples // hop + 2))  # Hz, of each formant in each frame
    scale = rng.uniform(0.95, 1.2)  # shorter throats have higher formants
    for start, end, midi in notes:
        pitch[start:] = midi
        gate[start:end] = rng.uniform(0.7, 1)
        held = max(min(end, samples) - start, 0)
        ramp[start : start + held] = np.clip(np.arange(held) / rate / 0.2, 0, 1)
        vowels[:, start // hop :] = scale * _choose(rng, _VOWELS)[:, None]
        if rng.random() < 0.6:
            burst = np.hanning(round(rng.uniform(0.03, 0.09) * rate))
            _place(consonants, max(start - len(burst) // 2, 0), burst, rng.uniform(0.3, 1))
    gate = _smooth(gate, 0.015 * rate)
    time = np.arange(samples) / rate
    vibrato = rng.uniform(0.4, 0.8) * np.sin(2 * np.pi * rng.uniform(4.8, 6.5) * time)
    pitch = _smooth(pitch, rng.uniform(0.02, 0.05) * rate)  # glides from note to note
    hertz = _hertz(pitch + vibrato * _smooth(ramp, 0.05 * rate))

    source = _pulses(hertz, rate) + rng.uniform(0.02, 0.06) * rng.standard_normal(samples)
    bins, _, spectrum = scipy.signal.stft(gate * source, rate, nperseg=size, noverlap=size - hop)
    vowels = _smooth(vowels, 0.04 * rate / hop)[:, : spectrum.shape[1]]
    response = _formants(bins, vowels, rng.uniform(1000, 2000))
    sung = scipy.signal.istft(spectrum * response, rate, nperseg=size, noverlap=size - hop)[1]
    sung = sung[:samples] / np.sqrt(np.mean(sung**2))
    corners = np.array([rng.uniform(3e3, 4e3), rng.uniform(8e3, 11e3)])
    hiss = _filter(rng.standard_normal(samples), rate, "bandpass", corners)
    return _pan(sung + consonants * hiss, rng.uniform(-0.15, 0.15))


def drums(song: Song, rng) -> np.ndarray:
    """Plays kick, snare and hi-hat, with a fill in every fourth bar, [samples, 2]."""
    rate = song.rate
    time = np.arange(round(0.35 * rate)) / rate
    kick_hertz, sweep, kick_decay = rng.uniform(45, 60), rng.uniform(100, 300), rng.uniform(12, 22)
    # The phase of a frequency that falls exponentially from kick_hertz + sweep to kick_hertz.
    phase = kick_hertz * time + sweep / 40 * (1 - np.exp(-40 * time))
    kick = np.sin(2 * np.pi * phase) * np.exp(-kick_decay * time)
    kick += 0.3 * rng.standard_normal(len(time)) * np.exp(-400 * time)  # the beater's click
    tone = np.sin(2 * np.pi * rng.uniform(160, 240) * time) * np.exp(-25 * time)
    band = np.array([rng.uniform(300, 1200), rng.uniform(7e3, 12e3)])
    rattle = _filter(rng.standard_normal(len(time)), rate, "bandpass", band)
    snare = 0.5 * tone + rattle * np.exp(-rng.uniform(12, 25) * time)
    # One long hiss for all strokes of the hi-hat, so that no two sound the same.
    hiss = _filter(rng.standard_normal(song.samples), rate, "highpass", rng.uniform(5e3, 8e3))
    closed, opened = np.exp(-rng.uniform(35, 70) * time), np.exp(-rng.uniform(7, 12) * time)

    kicks, snares, hats = np.zeros((3, song.samples))
    kick_steps, snare_steps = _choose(rng, _KICKS), _choose(rng, _SNARES)
    every = _choose(rng, (1, 2, 2))
    for bar in range(song.bars):
        for step in range(16):
            start = song.at(bar, step)
            if step in kick_steps or rng.random() < 0.04:
                _place(kicks, start, kick, rng.uniform(0.8, 1))
            fill = bar % 4 == 3 and step >= 12 and rng.random() < 0.7
            if step in snare_steps or fill:
                _place(snares, start, snare, rng.uniform(0.6, 1))
            if step % every == 0:
                stroke = opened if rng.random() < 0.1 else closed
                _place(hats, start, stroke, rng.uniform(0.4, 0.6) if step % 4 else 0.7)
    track = 0.8 * _pan(kicks, 0) + rng.uniform(0.6, 1) * _pan(snares, rng.uniform(-0.2, 0.2))
    track += rng.uniform(0.4, 0.9) * _pan(hats * hiss, rng.uniform(-0.5, 0.5))
    return np.tanh(2 * track)  # like a bus compressor: drums as loud as the rest, without peaks


def bass(song: Song, rng) -> np.ndarray:
    """Plays the chords' roots with some fifths and octaves, [samples, 2]."""
    k, rate = np.arange(1, 31), song.rate
    cutoff, decay = rng.uniform(200, 600), rng.uniform(0.3, 1.5)
    saw = _harmonic(rate, 1 / k, decay / 4, cutoff)
    square = _harmonic(rate, (k % 2) / k, decay / 4, cutoff)
    play = _choose(rng, (saw, square, _fm(rate, 1, rng.uniform(0.5, 2), decay)))
    rhythm, gate = _choose(rng, _BASS_RHYTHMS), rng.uniform(0.75, 1)
    track = np.zeros(song.samples)
    for bar in range(song.bars):
        for step, length in _steps(rhythm):
            above = 0 if step == 0 else rng.choice([0, 4, 7], p=[0.7, 0.15, 0.15])
            hertz = _hertz(song.note(song.chord(bar) % 7 + above))
            sound = play(hertz, gate * song.seconds(length))
            _place(track, song.at(bar, step), sound, rng.uniform(0.8, 1))
    return _pan(track, rng.uniform(-0.1, 0.1))


def chords(song: Song, rng) -> np.ndarray:
    """Plays chords on one side and an arpeggio of another timbre on the other, [samples, 2]."""
    chords, arpeggio = np.zeros((2, song.samples))
    makers = rng.permutation([_organ, _pluck, _pad, _piano])
    strum, pick = (maker(song.rate, rng) for maker in makers[:2])
    rhythm, order = _choose(rng, _CHORD_RHYTHMS), rng.permutation(4)
    lift = 14 + 7 * int(rng.integers(2))  # two or three octaves over the bass
    for bar in range(song.bars):
        # The chord's tones within one octave, as a hand would play them.
        tones = sorted((song.chord(bar) + third) % 7 for third in (0, 2, 4))
        for step, length in _steps(rhythm):
            for tone in tones:
                sound = strum(_hertz(song.note(tone + 14)), song.seconds(length))
                _place(chords, song.at(bar, step), sound)
        for step in range(0, 16, 2):
            tone = (*tones, tones[0] + 7)[order[step // 2 % 4]]
            sound = pick(_hertz(song.note(tone + lift)), song.seconds(3))
            _place(arpeggio, song.at(bar, step), sound)
    place = rng.choice([-1, 1]) * rng.uniform(0.2, 0.6)
    return _pan(chords, place) + rng.uniform(0.7, 1.5) * _pan(arpeggio, -place)


def _melody(song: Song, rng) -> list[tuple[int, int, float]]:
    """Returns (start, end, MIDI note) of each note, in samples; two-bar phrases end in a rest."""
    # The singer's lowest note is E3 to D4, the highest (8 degrees up) F#4 to E5.
    lowest = math.ceil((rng.uniform(52, 62) - song.root) * 7 / 12)
    degree, notes = lowest + 4, []
    for bar in range(song.bars):
        for step, length in _steps(_choose(rng, _VOICE_RHYTHMS)):
            degree = int(np.clip(degree + rng.integers(-2, 3), lowest, lowest + 8))
            if step % 8 == 0:  # stressed notes belong to the chord: its root, third or fifth
                degree += {1: -1, 3: 1, 5: -1, 6: 1}.get((degree - song.chord(bar)) % 7, 0)
            rest = int(rng.integers(1, 4)) if bar % 2 and step + length == 16 else 0
            start = song.at(bar, step)
            end = start + round((length - rest) * song.step)
            notes.append((start, end, song.note(degree)))
    return notes


def _pulses(hertz: np.ndarray, rate: int) -> np.ndarray:
    """Pulses of changing pitch, harmonics up to 10 kHz: a sum of cosines in closed form."""
    half = np.pi * np.cumsum(hertz) / rate
    harmonics = np.floor(min(10_000, 0.45 * rate) / hertz)
    below = np.sin(half)
    near = np.abs(below) < 1e-6
    ratio = np.sin((2 * harmonics + 1) * half) / np.where(near, 1, below)
    return (np.where(near, 2 * harmonics + 1, ratio) - 1) / 2 / np.sqrt(harmonics / 2)


def _formants(bins: np.ndarray, vowels: np.ndarray, tilt: float) -> np.ndarray:
    """Gains [bins, frames] of a throat with resonances `vowels` [4, frames], in Hz.

    `tilt` (Hz) is the frequency above which glottis and lips together lose 6 dB per octave.
    """
    bins = bins[:, None]
    gains = np.zeros((len(bins), vowels.shape[1]))
    for centre, width, level in zip(vowels, (45, 60, 80, 110), (1, 0.8, 0.8, 0.6), strict=True):
        gains += level / np.sqrt(1 + ((bins - centre) / width) ** 2)
    return gains / np.sqrt(1 + (bins / tilt) ** 2)


def _organ(rate: int, rng) -> Timbre:
    drawbars = np.array([1, 1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 1]) / np.arange(1, 13) ** 1.2
    return _harmonic(rate, drawbars * rng.uniform(0.1, 1, 12), attack=0.01)


def _pluck(rate: int, rng) -> Timbre:
    levels = np.arange(1.0, 25) ** -rng.uniform(1, 1.5)
    return _harmonic(rate, levels, decay=rng.uniform(0.6, 1.5))


def _pad(rate: int, rng) -> Timbre:
    levels, cutoff = 1 / np.arange(1, 25), rng.uniform(500, 1500)
    play = _harmonic(rate, levels, cutoff=cutoff, attack=0.1)
    detune = rng.uniform(1.002, 1.005)  # the two beat slowly against each other
    return lambda hertz, seconds: play(hertz, seconds) + play(hertz * detune, seconds)


def _piano(rate: int, rng) -> Timbre:
    return _fm(rate, rng.integers(1, 5), rng.uniform(0.5, 1.5), rng.uniform(0.6, 1.5))


def _harmonic(rate, levels, decay=0.0, cutoff=math.inf, attack=0.004) -> Timbre:
    """Harmonics 1, 2, 3, ... with these levels through a low-pass filter at `cutoff` Hz.

    Harmonic k decays by `decay` * k nepers per second.
    """

    def play(hertz, seconds):
        time = np.arange(round(seconds * rate)) / rate
        k = np.arange(1, 1 + min(len(levels), int(0.45 * rate / hertz)))
        heard = levels[: len(k)] / (1 + (k * hertz / cutoff) ** 2)
        # Harmonic k is the k-th power of the first: their sum is a polynomial in it.
        wave = np.exp((2j * np.pi * hertz - decay) * time)
        return _fade(np.polyval([*heard[::-1], 0], wave).imag / sum(heard), rate, attack)

    return functools.cache(play)


def _fm(rate, ratio, index, decay) -> Timbre:
    """A sine, phase-modulated by a sine at `ratio` times its frequency; bright, then mellow."""

    def play(hertz, seconds):
        time = np.arange(round(seconds * rate)) / rate
        phase = 2 * np.pi * hertz * time
        phase += index * np.exp(-2 * decay * time) * np.sin(ratio * phase)
        return _fade(np.sin(phase) * np.exp(-decay * time), rate, 0.004)

    return functools.cache(play)


def _fade(sound: np.ndarray, rate: int, attack: float) -> np.ndarray:
    """Adds ramps over the first `attack` seconds and at the end, so that nothing clicks."""
    time = np.arange(len(sound)) / rate
    return sound * np.clip(time / attack, 0, 1) * np.clip(time[::-1] / max(attack, 0.03), 0, 1)


def _choose(rng, options):
    """Draws one of the options, unchanged; `rng.choice` would turn it into an array."""
    return options[rng.integers(len(options))]


def _steps(rhythm):
    """Returns (start, length) of a bar's notes, in sixteenths; each lasts until the next."""
    return [(step, after - step) for step, after in zip(rhythm, (*rhythm[1:], 16), strict=True)]


def _hertz(midi):
    return 440 * 2 ** ((midi - 69) / 12)


def _filter(sound: np.ndarray, rate: int, kind: str, hertz) -> np.ndarray:
    """Butterworth "lowpass", "highpass" or "bandpass"; corners are kept below Nyquist."""
    corners = np.minimum(hertz, 0.45 * rate)
    if kind == "bandpass":
        corners[0] = min(corners[0], 0.5 * corners[1])
    sections = scipy.signal.butter(2, corners, kind, fs=rate, output="sos")
    return scipy.signal.sosfilt(sections, sound)


def _smooth(curve: np.ndarray, samples: float) -> np.ndarray:
    """A curve [..., time] that follows `curve` with a time constant of `samples` samples."""
    pole = math.exp(-1 / samples)
    return scipy.signal.lfilter([1 - pole], [1, -pole], curve, zi=pole * curve[..., :1])[0]


def _place(track: np.ndarray, start: int, sound: np.ndarray, gain: float = 1.0) -> None:
    """Adds a sound to the track at `start`; samples past the track's end are dropped."""
    sound = sound[: max(len(track) - start, 0)]
    track[start : start + len(sound)] += gain * sound


def _pan(sound: np.ndarray, place: float) -> np.ndarray:
    """Pans mono [samples] to stereo [samples, 2] with equal power, -1 (left) to 1 (right)."""
    angle = (place + 1) * math.pi / 4
    return sound[:, None] * np.array([math.cos(angle), math.sin(angle)])


def room(rate: int, rng) -> np.ndarray:
    """Draws a room's impulse response [samples, 2] with energy 1: decaying low-passed noise."""
    time = np.arange(round(0.8 * rate))[:, None] / rate
    noise = _filter(rng.standard_normal((2, len(time))), rate, "lowpass", rng.uniform(3e3, 8e3)).T
    impulse = noise * np.exp(-6.9 * time / rng.uniform(0.25, 0.8))  # 60 dB down in the drawn time
    return impulse / np.sqrt(np.sum(impulse**2, axis=0))
