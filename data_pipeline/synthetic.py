"""Makes a small multitrack set from a seed, for the tour and the tests.

Every track has its own key, tempo, chords, patterns, instruments, room and mix. Drums, bass, chords
and a sung voice sound most of the time and differ as in music: drums are short and broad-band, the
bass is low, chords keep their pitch, and the voice glides, has vibrato and changes vowels.

The same seed gives the same samples on one machine; FFTs of other machines may round differently.
"""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile
from tqdm import tqdm

from data_pipeline import instruments
from sccunet.files import folder_written_whole

_PLAYERS = {
    "vocals": instruments.vocals,
    "drums": instruments.drums,
    "bass": instruments.bass,
    "other": instruments.chords,
}
STEMS = tuple(_PLAYERS)
_PEAK = 0.85  # of the mixture and of each stem, so that rounding to 16 bit does not clip
_LEVEL_DB = {"vocals": 0.5, "drums": 1.0, "bass": 0.0, "other": 0.0}  # before each track's mix
_MIX_DB = 2.0  # largest change of a stem's level in a track's mix, up or down
# Noise as in recordings: museval's SIR, a projection onto the references, is ill-conditioned if a
# reference has an empty band or two equal channels.
_NOISE_DB = -70.0
_REVERB = {"vocals": 0.2, "drums": 0.08, "bass": 0.02, "other": 0.15}  # amplitude, dry sound = 1


def make_track(seed: int, seconds: float, sample_rate: int = 44_100) -> dict[str, np.ndarray]:
    """Makes the stems of one track.

    Args:
      seed: determines the track; 0 or more.
      seconds: length of the track.
      sample_rate: in Hz.

    Returns:
      vocals, drums, bass and other, each float32 [samples, 2]. They and their sum peak at 0.85 or
      below.
    """
    rng = np.random.default_rng(seed)
    song = instruments.draw_song(sample_rate, round(seconds * sample_rate), rng)
    impulse = instruments.room(song.rate, rng)
    stems = {}
    for name in STEMS:
        sound = _PLAYERS[name](song, rng)
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
    PCM; the mixture is the exact sum of the stems. A track appears whole or not at all, and an
    existing track is left unchanged. All tracks of all splits differ.
    The processes are spawned: a script must call this under `if __name__ == "__main__":`.

    Args:
      data_dir: created if missing.
      tracks: number of tracks in each split; by default 16 for train, 2 for valid and 4 for test.
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
        ended = concurrent.futures.as_completed(done)
        for future in tqdm(ended, "synthetic set", len(done), disable=None):
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
    with folder_written_whole(path) as part:
        for name, sound in {"mixture": mixture, **stems}.items():
            soundfile.write(part / f"{name}.wav", sound, rate, subtype="PCM_16")


def _decibels(level: float) -> float:
    return 10 ** (level / 20)
