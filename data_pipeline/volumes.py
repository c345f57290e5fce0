"""Computes the mean volume of every stem in one streaming pass over the training split."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from data_pipeline import dataset, places, readers
from data_pipeline.errors import AudioError
from data_pipeline.tracks import Segment
from sccunet import spectral
from sccunet.checks import counted
from sccunet.config import Config
from sccunet.files import read_json, write_whole

_BATCH = 8


def training_volumes(
    segments: Sequence[Segment], config: Config, cache_dir: str | os.PathLike
) -> np.ndarray:
    """Computes V_i, the 2-norm of stem i's magnitude spectrogram, averaged over all patches.

    The result is kept in `cache_dir` under a fingerprint of everything that it depends on, and a
    second run reads it from there, unless the file is damaged. The patches are consecutive.

    Args:
      segments: the training split.
      config: gives stems, sources, patch length and STFT.
      cache_dir: the data directory; if it cannot be written, nothing is kept.

    Returns:
      float64 [stems].

    Raises:
      AudioError: if a stem is silent throughout the split, or a file has become unreadable.
    """
    fingerprint = _fingerprint(segments, config)
    path = Path(cache_dir) / f"volumes.{fingerprint[:16]}.json"
    patches = [segment.frames // config.model.patch_samples for segment in segments]
    per_segment = _kept(path, (len(segments), len(config.model.stems)))
    if per_segment is None:
        per_segment = _per_segment(segments, config)
        found = {
            "fingerprint": fingerprint,
            "stems": list(config.model.stems),
            "tracks": [segment.track.name for segment in segments],
            "volumes": per_segment.tolist(),
            "patches": patches,
        }
        try:
            write_whole(path, json.dumps(found, indent=1))
        except OSError as error:
            logging.warning("volumes are not kept beside the data: %s", error)
    for segment, volumes in zip(segments, per_segment, strict=True):
        for stem in np.flatnonzero(volumes == 0):
            logging.warning(
                "%s: stem '%s' is silent throughout, expected sound in it; training continues",
                segment.track.name,
                config.model.stems[stem],
            )
    volumes = np.average(per_segment, axis=0, weights=patches)
    for stem, volume in zip(config.model.stems, volumes, strict=True):
        if volume == 0:
            raise AudioError(
                f"stem '{stem}': found only silence in {counted(len(segments), 'training track')},"
                " expected sound in at least one"
            )
    return volumes


def _kept(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Reads volumes [segments, stems] that an earlier run kept; None if missing or damaged."""
    try:
        volumes = np.array(read_json(path, "volumes")["volumes"], float)
        whole = volumes.shape == shape and np.isfinite(volumes).all()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, TypeError, ValueError):
        whole = False
    if whole:
        return volumes
    logging.warning("%s: found a damaged file, expected volumes; computing them again", path)
    return None


def _per_segment(segments: Sequence[Segment], config: Config) -> np.ndarray:
    """Computes the mean volume of each stem in each segment, float64 [segments, stems]."""
    model = config.model
    crops = places.fixed_crops(segments, config)

    @tf.function
    def batch_volumes(waveforms):  # [batch, stems, channels, samples] -> [batch, stems]
        real, imaginary = spectral.stft(waveforms, model)  # [batch, stems, channels, frames, bins]
        power = tf.math.square(real) + tf.math.square(imaginary)
        return tf.reduce_mean(tf.sqrt(tf.reduce_sum(power, axis=(3, 4))), axis=2)

    totals = np.zeros((len(segments), len(model.stems)))
    counts = np.zeros(len(segments))
    # Both channels, where training draws one: the weights must not depend on the draws.
    batches = dataset.fixed_dataset(segments, config, crops, _BATCH, stereo=not config.downmix)
    bar = tqdm(total=len(crops), desc="volumes", unit="patch", disable=None)
    with bar, readers.plain_errors():
        for first, waveforms in enumerate(batches):
            volumes = batch_volumes(waveforms).numpy()
            for (index, _), row in zip(crops[first * _BATCH :], volumes, strict=False):
                totals[index] += row
                counts[index] += 1
            bar.update(len(volumes))
    return totals / counts[:, None]


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
