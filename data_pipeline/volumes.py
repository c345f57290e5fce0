"""Computes the volume of every stem in every patch, in one streaming pass over the training split.

The volume of a stem in a patch is the 2-norm of its magnitude spectrogram. The loss is balanced by
the mean volumes; patches in which a stem is silent can be left out.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging
from tqdm import tqdm

from data_pipeline import loader, places
from data_pipeline.errors import AudioError
from data_pipeline.tracks import Segment
from sccunet import spectral
from sccunet.checks import counted
from sccunet.config import Config
from sccunet.files import read_json, write_whole

_BATCH = 8
# A stem is silent in a patch whose volume is this fraction of its mean volume: 40 dB below, where
# hardly more than reverberation and leakage is left.
_SILENT = 10 ** (-40 / 20)

_Dir = str | os.PathLike


def training_volumes(
    segments: Sequence[Segment], config: Config, cache_dirs: Sequence[_Dir]
) -> np.ndarray:
    """Computes V_i, the 2-norm of stem i's magnitude spectrogram, averaged over all patches.

    The result is kept in each directory under a fingerprint of everything that its part depends on,
    and a second run reads it from there, unless the file is damaged. The patches are consecutive.
    Those of tracks without the stem do not count.

    Args:
      segments: the training split.
      config: gives stems, sources, patch length and STFT.
      cache_dirs: the data directories, in their order; where one cannot be written, nothing is
        kept.

    Returns:
      float64 [stems].

    Raises:
      AudioError: if a stem is silent throughout the split, or a file has become unreadable.
    """
    stems = config.model.stems
    per_segment = [found.means for found in _found(segments, config, cache_dirs)]
    for segment, volumes in zip(segments, per_segment, strict=True):
        for stem in np.flatnonzero(volumes == 0):
            logging.warning(
                "%s: stem '%s' is silent throughout, expected sound in it; training continues",
                segment.track.name,
                stems[stem],
            )
    volumes = _mean(segments, config, per_segment)
    for stem, volume, own in zip(stems, volumes, np.isfinite(per_segment).sum(axis=0), strict=True):
        if volume == 0:
            raise AudioError(
                f"stem '{stem}': found only silence in {counted(own, 'training track')},"
                " expected sound in at least one"
            )
    return volumes


def with_silence(
    segments: Sequence[Segment], config: Config, cache_dirs: Sequence[_Dir]
) -> list[Segment]:
    """Returns the segments with the patches in which a stem is silent.

    Silent are those whose volume is below a hundredth (-40 dB) of the stem's mean. If
    `config.augment.silent_share` is 1, they are of no interest, and nothing is read.

    Args:
      segments, config, cache_dirs: as for `training_volumes`, which takes the same pass.

    Raises:
      AudioError: if a file has become unreadable.
    """
    if config.augment.silent_share == 1:
        return list(segments)
    found = _found(segments, config, cache_dirs, every_patch=True)
    least = _SILENT * _mean(segments, config, [each.means for each in found])
    return [
        dataclasses.replace(
            segment,
            silent=tuple(
                frozenset(np.flatnonzero(row).tolist()) for row in (each.patches < least).T
            ),
        )
        for segment, each in zip(segments, found, strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class _Volumes:
    """Volumes in one segment; NaN for stems that its track lacks.

    Attributes:
      means: float64 [stems].
      patches: float64 [patches, stems]; None where an earlier version has kept only the means.
    """

    means: np.ndarray
    patches: np.ndarray | None


def _mean(
    segments: Sequence[Segment], config: Config, per_segment: Sequence[np.ndarray]
) -> np.ndarray:
    """Averages the stems' volumes over the patches of the segments that have them."""
    patches = [segment.frames // config.model.patch_samples for segment in segments]
    return np.ma.average(np.ma.masked_invalid(per_segment), axis=0, weights=patches).data


def _found(
    segments: Sequence[Segment],
    config: Config,
    cache_dirs: Sequence[_Dir],
    every_patch: bool = False,
) -> list[_Volumes]:
    """Returns the volumes of each segment; those of a directory are kept in it."""
    found: dict[int, _Volumes] = {}
    for directory, cache_dir in enumerate(cache_dirs):
        own = [i for i, segment in enumerate(segments) if segment.directory == directory]
        part = [segments[i] for i in own]
        fingerprint = _fingerprint(part, config)
        path = Path(cache_dir) / f"volumes.{fingerprint[:16]}.json"
        kept = _kept(path, part, config)
        if kept is None or (every_patch and kept[0].patches is None):
            kept = _computed(part, config)
            try:
                write_whole(path, _to_json(fingerprint, part, config, kept))
            except OSError as error:
                logging.warning("volumes are not kept beside the data: %s", error)
        found |= zip(own, kept, strict=True)
    return [found[i] for i in range(len(segments))]


def _to_json(
    fingerprint: str, segments: Sequence[Segment], config: Config, found: Sequence[_Volumes]
) -> str:
    def plain(volumes):  # nine digits tell all float32 numbers apart
        return [[None if np.isnan(x) else float(f"{x:.9g}") for x in row] for row in volumes]

    return json.dumps(
        {
            "fingerprint": fingerprint,
            "stems": list(config.model.stems),
            "tracks": [segment.track.name for segment in segments],
            "volumes": [[None if np.isnan(x) else x for x in each.means] for each in found],
            "patches": [len(each.patches) for each in found],
            "patch_volumes": [plain(each.patches) for each in found],
        }
    )


def _kept(path: Path, segments: Sequence[Segment], config: Config) -> list[_Volumes] | None:
    """Reads volumes that an earlier run kept; None if missing or damaged."""
    has = np.array([segment.track.has(config) for segment in segments])
    counts = [segment.frames // config.model.patch_samples for segment in segments]
    try:
        content = read_json(path, "volumes")
        means = np.array(content["volumes"], float)
        patches = [np.array(rows, np.float32) for rows in content.get("patch_volumes", [])]
        whole = np.array_equal(np.isfinite(means), has)
        if whole and patches:
            whole = all(
                np.array_equal(np.isfinite(each), row[None].repeat(count, axis=0))
                for each, row, count in zip(patches, has, counts, strict=True)
            )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, TypeError, ValueError):
        whole = False
    if whole:
        return [_Volumes(*pair) for pair in zip(means, patches or [None] * len(means), strict=True)]
    logging.warning("%s: found a damaged file, expected volumes; computing them again", path)
    return None


def _computed(segments: Sequence[Segment], config: Config) -> list[_Volumes]:
    """Computes the volumes of each segment, reading each stem's patches once."""
    from keras import ops

    has = np.array([segment.track.has(config) for segment in segments])
    stems = np.flatnonzero(has.any(axis=0))
    named = [config.model.stems[stem] for stem in stems]
    # A model of masks has several stems, and there may be one here; volumes need its STFT alone.
    model = dataclasses.replace(config.model, stems=named, output="magnitude")
    sources = {stem: config.files_of(stem) for stem in named}
    part = Config(model=model, sources=sources, downmix=config.downmix)
    crops = places.side_by_side(places.patches_of_stems(segments, part))

    def batch_volumes(waveforms):  # [batch, stems, channels, samples] -> [batch, stems]
        real, imaginary = spectral.stft(waveforms, model)  # [batch, stems, channels, frames, bins]
        power = ops.sum(ops.square(real) + ops.square(imaginary), axis=(3, 4))
        return ops.convert_to_numpy(ops.mean(ops.sqrt(power), axis=2))

    # Both channels, where training draws one: the weights must not depend on the draws.
    batches = loader.FixedBatches(segments, part, crops, _BATCH, stereo=not config.downmix)
    bar = tqdm(total=len(crops), desc="volumes", unit="patch", disable=None)
    rows = []
    with bar:
        for waveforms in batches:
            rows.append(batch_volumes(waveforms))
            bar.update(len(rows[-1]))
    rows = np.concatenate(rows)  # [crops, stems]
    found, done = [], np.zeros(len(config.model.stems), int)
    for segment, own in zip(segments, has, strict=True):
        count = segment.frames // model.patch_samples
        volumes = np.full((count, len(own)), np.nan)
        for column, stem in enumerate(stems):
            if own[stem]:
                volumes[:, stem] = rows[done[stem] : done[stem] + count, column]
        done[own] += count
        found.append(_Volumes(sum(volumes) / count, volumes))
    return found


def _fingerprint(segments: Sequence[Segment], config: Config) -> str:
    """Hashes everything that the volumes depend on."""
    model = config.model
    parts: list = [
        model.stems,
        [config.files_of(stem) for stem in model.stems],
        [model.sample_rate, model.frame_length, model.hop_length, model.patch_samples],
        [config.downmix, config.downmix],  # twice, as in files of earlier versions
    ]
    for segment in segments:
        files = sorted(segment.track.files.items())
        stats = [os.stat(info.path) for _, info in files]
        parts.append(
            [
                [segment.track.split, segment.track.name, segment.start, segment.frames],
                [
                    [name, stat.st_size, stat.st_mtime_ns]
                    for (name, _), stat in zip(files, stats, strict=True)
                ],
            ]
        )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
