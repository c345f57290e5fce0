"""Makes the tracks of the free training set from the works in its list.

Every track has the files vocals.wav and accompaniment.wav, or one of them. Test songs also have the
parts of their accompaniment.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from data_pipeline import audio
from data_pipeline.errors import AudioError
from experiments.free_music_set import singing
from experiments.free_music_set.listing import DIRECTORIES, Work
from experiments.free_music_set.sources import opened
from experiments.free_music_set.speech import RATE, joined, mono, shuffled

_LONGEST = (
    180  # seconds that are taken of a piece of music: more pieces are worth more than long ones
)
_SUNG_DB = -3.0  # level of a sung validation song's voice against its music
_PEAK = 0.95  # of a mixture that is made here


@dataclasses.dataclass(frozen=True)
class Track:
    """A track to be made.

    Attributes:
      directory: data directory, in `DIRECTORIES`.
      split, name: of the track's folder.
      work: what it is made from.
      number: which of a speaker's takes it is.
    """

    directory: str
    split: str
    name: str
    work: Work
    number: int = 0

    @property
    def path(self) -> Path:
        """Its folder in the set's folder."""
        return Path(self.directory, self.split, self.name)


def planned(works: Mapping[str, Work]) -> list[Track]:
    """Lists the tracks of all works: all speakers' first takes come before the second ones.

    Music of the validation split has no track of its own; those who sing to it validate as songs.
    """
    tracks = []
    for role, directory in DIRECTORIES.items():
        own = [work for work in works.values() if work.role == role]
        if role == "accompaniment":
            own = [work for work in own if work.split == "train"]
        for number in range(max((work.takes for work in own), default=0)):
            for work in own:
                if number < work.takes:
                    name = f"{work.name}_{number}" if work.takes > 1 else work.name
                    place = "songs" if work.over else directory
                    tracks.append(Track(place, work.split, name, work, number))
    return tracks


def stems_of(
    track: Track, works: Mapping[str, Work], folders: Mapping[str, Path]
) -> dict[str, np.ndarray]:
    """Makes a track.

    Args:
      track: which.
      works: the work `track.work.over`, by its name; no others are needed.
      folders: the folder of each source.

    Returns:
      Stem -> float64 `[samples, channels]` at 44.1 kHz, at most 1.

    Raises:
      AudioError: if a file is missing, is not the listed one or has no audio, if there is too
        little speech to sing, or if the gain of a song makes a stem exceed full scale.
    """
    work, folder = track.work, folders[track.work.source]
    if work.role == "stems":
        stems = _song(work, folder)
    elif work.role == "accompaniment":
        stems = {"accompaniment": _music(work, folder)}
    elif work.role == "vocals":
        paths = shuffled(work.name, work.files["vocals"])
        voice = joined((_mono(work, folder, path) for path in paths), even=False)
        stems = {"vocals": voice[:, None]}
    else:
        stems = {"vocals": _sung(track, folder)}
        if work.over:
            music = works[work.over]
            stems["accompaniment"] = _music(music, folders[music.source])
            stems = mixed(stems["vocals"], stems["accompaniment"])
    for stem, samples in stems.items():
        if not len(samples):
            raise AudioError(f"{work.name}: found no {stem} in its files, expected audio")
        if (peak := np.abs(samples).max()) > 1:
            raise AudioError(
                f"{work.name}: found a peak of {peak:.3f} in {stem}, expected a lower gain"
            )
    return stems


def _mono(work: Work, folder: Path, path: str) -> np.ndarray:
    with opened(folder, path, work.files["vocals"][path]) as file:
        return mono(file)


def _stereo(work: Work, folder: Path, stem: str, path: str) -> np.ndarray:
    """Reads a file, float64 `[samples, 2]`."""
    with opened(folder, path, work.files[stem][path]) as file:
        samples, rate = audio.read(file)
    samples = audio.resample(samples, rate, RATE).astype(np.float64)
    return samples[:, [0, min(samples.shape[1], 2) - 1]]


def _song(work: Work, folder: Path) -> dict[str, np.ndarray]:
    """Sums a song's files to stems, and all but the vocals to an accompaniment.

    The stems are those that 16 bits can hold, so that both sets of them have the same sum.
    """
    stems = {
        stem: _sum(_stereo(work, folder, stem, path) for path in paths)
        for stem, paths in work.files.items()
    }
    length = max(map(len, stems.values()))
    for stem, samples in stems.items():
        samples = _padded(samples, length) * (work.gain * 2**15)
        stems[stem] = np.round(samples) / 2**15
    accompaniment = sum(samples for stem, samples in stems.items() if stem != "vocals")
    if work.split != "test":
        stems = {"vocals": stems["vocals"]}
    return {**stems, "accompaniment": accompaniment}


def _sum(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Adds up recordings of any length, `[samples, 2]`."""
    total = np.zeros((0, 2))
    for samples in parts:
        total = _padded(total, len(samples))
        total[: len(samples)] += samples
    return total


def _padded(samples: np.ndarray, length: int) -> np.ndarray:
    """Pads a recording, `[samples, channels]`, with silence to a length, if it is shorter."""
    missing = length - len(samples)
    return np.pad(samples, ((0, missing), (0, 0))) if missing > 0 else samples


def _music(work: Work, folder: Path) -> np.ndarray:
    """Returns the middle of a piece, float64 `[samples, 2]`."""
    ((path, _),) = work.files["accompaniment"].items()
    samples = middle(_stereo(work, folder, "accompaniment", path), _LONGEST * RATE)
    # Lossy files can exceed full scale.
    return samples * work.gain / max(np.abs(samples).max(initial=0), 1)


def _sung(track: Track, folder: Path) -> np.ndarray:
    """Sings a take, each of other recordings of the speaker's if there are enough."""
    work = track.work
    paths = shuffled(f"{work.name} {track.number}", work.files["vocals"])
    recordings = (_mono(work, folder, path) for path in paths)
    speech = joined(recordings, even=True, seconds=singing.SPEECH)
    return singing.take(speech, work.name, track.number)


def middle(samples: np.ndarray, most: int) -> np.ndarray:
    """Returns the middle `most` samples, or all if there are fewer."""
    first = max(len(samples) - most, 0) // 2
    return samples[first : first + most]


def mixed(vocals: np.ndarray, music: np.ndarray) -> dict[str, np.ndarray]:
    """Puts a voice over music, 3 dB below it: float64 `[samples, 2]` each, of the same length."""
    music = middle(music, len(vocals))
    vocals = vocals[: len(music)]
    power = np.mean(music**2) / np.mean(vocals**2)
    vocals = vocals * np.sqrt(power) * 10 ** (_SUNG_DB / 20)
    gain = _PEAK / max(np.abs(vocals + music).max(), np.abs(vocals).max(), _PEAK)
    return {"vocals": vocals * gain, "accompaniment": music * gain}
