"""A small multitrack set, drawn from a seed: for the demo and the tests, where there is no music.

Every track has its own key, tempo, chords, patterns, instruments, room and mix. Drums, bass, chords
and a sung voice sound most of the time and differ as in music: the drums are short and broad-band,
the bass is low, the chords keep their pitch, the voice glides, trembles and changes its vowels.

The same seed gives the same samples on one machine; other machines' FFTs may round differently.
"""

import concurrent.futures
import dataclasses
import functools
import math
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile
from tqdm import tqdm

STEMS = ("vocals", "drums", "bass", "other")

_PEAK = 0.85  # of the mixture and of each stem: rounding to 16 bit must not clip
_LEVEL_DB = {"vocals": 0.5, "drums": 1.0, "bass": 0.0, "other": 0.0}  # before each track's own mix
_MIX_DB = 2.0  # stems are up to this much louder or softer in a track's own mix
# Recordings have noise everywhere, and museval's SIR, a projection onto the references, is
# ill-conditioned where a reference has an empty band or two equal channels.
_NOISE_DB = -70.0
_REVERB = {"vocals": 0.2, "drums": 0.08, "bass": 0.02, "other": 0.15}  # amplitude, dry sound = 1

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10))
_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 0, 4), (0, 2, 3, 4), (0, 6, 5, 6))
# Rhythms are in sixteenths of a 4/4 bar: where notes start.
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
class _Song:
    """What a track's instruments agree on."""

    rate: int  # Hz
    samples: int
    step: float  # length of a sixteenth, in samples
    swing: float  # how late every other sixteenth is, in sixteenths
    root: int  # MIDI note of degree 0 in the bass
    scale: tuple[int, ...]  # semitones over the root
    progression: tuple[int, ...]  # degree of each bar's chord, over and over

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
        """The MIDI note of a degree of the scale; degrees go on over the octaves."""
        octave, index = divmod(degree, len(self.scale))
        return self.root + 12 * octave + self.scale[index]


def make_track(seed: int, seconds: float, sample_rate: int = 44_100) -> dict[str, np.ndarray]:
    """The stems of the track that `seed` draws.

    Args:
      seed: 0 or more.
      seconds: length of the track.
      sample_rate: in Hz.

    Returns:
      vocals, drums, bass and other, each float32 [samples, 2]. They and their sum peak at 0.85 or
      below.
    """
    rng = np.random.default_rng(seed)
    song = _Song(
        rate=sample_rate,
        samples=round(seconds * sample_rate),
        step=sample_rate * 60 / rng.uniform(80, 150) / 4,
        swing=rng.choice([0.0, rng.uniform(0.1, 0.35)]),
        root=int(rng.integers(28, 40)),  # E1 to D#2
        scale=_choose(rng, _SCALES),
        progression=_choose(rng, _PROGRESSIONS),
    )
    impulse = _room(song.rate, rng)
    players = {"vocals": _vocals, "drums": _drums, "bass": _bass, "other": _chords}
    stems = {}
    for name in STEMS:
        sound = players[name](song, rng)
        wet = scipy.signal.oaconvolve(sound.mean(axis=1, keepdims=True), impulse, axes=0)
        sound = sound + _REVERB[name] * wet[: song.samples]
        gain = _decibels(_LEVEL_DB[name] + rng.uniform(-_MIX_DB, _MIX_DB))
        noise = _decibels(_NOISE_DB) * rng.standard_normal(sound.shape)
        stems[name] = gain * (sound / np.sqrt(np.mean(sound**2)) + noise)
    peak = max(np.abs(sound).max() for sound in (*stems.values(), sum(stems.values())))
    return {name: (_PEAK / peak * sound).astype(np.float32) for name, sound in stems.items()}


def make_set(
    data_dir: str | os.PathLike,
    tracks: Mapping[str, int] | None = None,
    seconds: float = 20.0,
    seed: int = 0,
) -> None:
    """Writes a set of tracks in the layout of MUSDB18-HQ, in several processes.

    `data_dir/<split>/synthetic <split> <number>/{mixture,vocals,drums,bass,other}.wav` are 16-bit
    PCM, the mixture being the exact sum of the stems. A track appears whole or not at all, and one
    that is there already stays as it is. No two tracks are alike, whatever their split.
    The processes are spawned: a script must call this under `if __name__ == "__main__":`.

    Args:
      data_dir: made if it is not there.
      tracks: how many of each split; 16 for train, 2 for valid and 4 for test by default.
      seconds: length of each track.
      seed: another seed gives another set.
    """
    tracks = {"train": 16, "valid": 2, "test": 4} if tracks is None else tracks
    todo = []
    for split, count in tracks.items():
        for number in range(count):
            path = Path(data_dir, split, f"synthetic {split} {number:02d}")
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                todo.append((path, seconds, _track_seed(seed, path.name)))
    if not todo:
        return
    with concurrent.futures.ProcessPoolExecutor(
        max_workers=min(len(todo), os.cpu_count() or 1),
        mp_context=multiprocessing.get_context("spawn"),
    ) as pool:
        done = [pool.submit(_write_track, *work) for work in todo]
        for future in tqdm(concurrent.futures.as_completed(done), "synthetic set", len(done)):
            future.result()


def _track_seed(seed: int, name: str) -> int:
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1, np.uint64)[0])


def _write_track(path: Path, seconds: float, seed: int) -> None:
    rate = 44_100
    stems = {
        name: np.round(sound * 32767).astype(np.int16)
        for name, sound in make_track(seed, seconds, rate).items()
    }
    mixture = sum(sound.astype(np.int32) for sound in stems.values()).astype(np.int16)
    # Not inside the split's folder, where the leftovers of a killed run would pass for a track.
    with tempfile.TemporaryDirectory(prefix=".synthetic-", dir=path.parents[1]) as temporary:
        unfinished = Path(temporary, "track")
        unfinished.mkdir()
        for name, sound in {"mixture": mixture, **stems}.items():
            soundfile.write(unfinished / f"{name}.wav", sound, rate, subtype="PCM_16")
        os.replace(unfinished, path)


def _choose(rng, options):
    """One of the options as it is; `rng.choice` would make an array of it."""
    return options[rng.integers(len(options))]


def _steps(rhythm):
    """(start, length) of a bar's notes, in sixteenths: each lasts until the next."""
    return [(step, after - step) for step, after in zip(rhythm, (*rhythm[1:], 16), strict=True)]


def _decibels(level: float) -> float:
    return 10 ** (level / 20)


def _hertz(midi):
    return 440 * 2 ** ((midi - 69) / 12)


def _filter(sound: np.ndarray, rate: int, kind: str, hertz) -> np.ndarray:
    """Butterworth "lowpass", "highpass" or "bandpass"; corners stay below the Nyquist frequency."""
    corners = np.minimum(hertz, 0.45 * rate)
    if kind == "bandpass":
        corners[0] = min(corners[0], 0.5 * corners[1])
    sections = scipy.signal.butter(2, corners, kind, fs=rate, output="sos")
    return scipy.signal.sosfilt(sections, sound)


def _smooth(curve: np.ndarray, samples: float) -> np.ndarray:
    """A curve [..., time] that follows `curve` with a time constant of so many samples."""
    pole = math.exp(-1 / samples)
    return scipy.signal.lfilter([1 - pole], [1, -pole], curve, zi=pole * curve[..., :1])[0]


def _place(track: np.ndarray, start: int, sound: np.ndarray, gain: float = 1.0) -> None:
    """Adds a sound to the track at `start`; what hangs over the track's end is dropped."""
    sound = sound[: max(len(track) - start, 0)]
    track[start : start + len(sound)] += gain * sound


def _pan(sound: np.ndarray, place: float) -> np.ndarray:
    """Mono [samples] to stereo [samples, 2] of equal power, from -1 (left) to 1 (right)."""
    angle = (place + 1) * math.pi / 4
    return sound[:, None] * np.array([math.cos(angle), math.sin(angle)])


def _room(rate: int, rng) -> np.ndarray:
    """A room's impulse response [samples, 2], of energy 1: low-passed noise that decays."""
    time = np.arange(round(0.8 * rate))[:, None] / rate
    noise = _filter(rng.standard_normal((2, len(time))), rate, "lowpass", rng.uniform(3e3, 8e3)).T
    impulse = noise * np.exp(-6.9 * time / rng.uniform(0.25, 0.8))  # 60 dB down in so many seconds
    return impulse / np.sqrt(np.sum(impulse**2, axis=0))


def _fade(sound: np.ndarray, rate: int, attack: float) -> np.ndarray:
    """Ramps over the first `attack` seconds and at the end, so that nothing clicks."""
    time = np.arange(len(sound)) / rate
    return sound * np.clip(time / attack, 0, 1) * np.clip(time[::-1] / max(attack, 0.03), 0, 1)


def _harmonic(rate, levels, decay=0.0, cutoff=math.inf, attack=0.004) -> Timbre:
    """Harmonics 1, 2, 3, ... of these levels through a low pass (Hz); the k-th decays `decay` * k
    nepers per second."""

    def play(hertz, seconds):
        time = np.arange(round(seconds * rate)) / rate
        k = np.arange(1, 1 + min(len(levels), int(0.45 * rate / hertz)))
        heard = levels[: len(k)] / (1 + (k * hertz / cutoff) ** 2)
        # Harmonic k is the k-th power of the first: their sum is a polynomial in it.
        wave = np.exp((2j * np.pi * hertz - decay) * time)
        return _fade(np.polyval([*heard[::-1], 0], wave).imag / sum(heard), rate, attack)

    return functools.cache(play)


def _fm(rate, ratio, index, decay) -> Timbre:
    """A sine whose phase is modulated by one `ratio` times as high; bright first, then mellow."""

    def play(hertz, seconds):
        time = np.arange(round(seconds * rate)) / rate
        phase = 2 * np.pi * hertz * time
        phase += index * np.exp(-2 * decay * time) * np.sin(ratio * phase)
        return _fade(np.sin(phase) * np.exp(-decay * time), rate, 0.004)

    return functools.cache(play)


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


def _chords(song: _Song, rng) -> np.ndarray:
    """Chords on one side and an arpeggio of another timbre on the other, [samples, 2]."""
    chords, arpeggio = np.zeros((2, song.samples))
    makers = rng.permutation([_organ, _pluck, _pad, _piano])
    strum, pick = (maker(song.rate, rng) for maker in makers[:2])
    rhythm, order = _choose(rng, _CHORD_RHYTHMS), rng.permutation(4)
    lift = 14 + 7 * int(rng.integers(2))  # two or three octaves over the bass
    for bar in range(song.bars):
        # The chord's tones within one octave, as a hand would take them.
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


def _bass(song: _Song, rng) -> np.ndarray:
    """The chords' roots with some fifths and octaves, [samples, 2]."""
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


def _drums(song: _Song, rng) -> np.ndarray:
    """Kick, snare and hi-hat, with a fill in every fourth bar, [samples, 2]."""
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
    # One long hiss under all the hi-hat's strokes, so that no two sound alike.
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
    return np.tanh(
        2 * track
    )  # a bus compressor's part: drums as loud as the rest, without its peaks


def _melody(song: _Song, rng) -> list[tuple[int, int, float]]:
    """(start, end, MIDI note) of each sung note, in samples; two-bar phrases that end in a rest."""
    # The lowest note that this singer sings is E3 to D4; the highest, 8 degrees up, F#4 to E5.
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


def _vocals(song: _Song, rng) -> np.ndarray:
    """A voice: glottal pulses and breath through moving formants, with consonants, [samples, 2]."""
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

    `tilt` (Hz) is from where on the glottis and the lips together lose 6 dB per octave.
    """
    bins = bins[:, None]
    gains = np.zeros((len(bins), vowels.shape[1]))
    for centre, width, level in zip(vowels, (45, 60, 80, 110), (1, 0.8, 0.8, 0.6), strict=True):
        gains += level / np.sqrt(1 + ((bins - centre) / width) ** 2)
    return gains / np.sqrt(1 + (bins / tilt) ** 2)
