"""Section "input": stem-seconds of training data per second, read from the page cache."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipeline import sigsep
from experiments.benchmarks.clock import Result, repeated
from sccunet.config import AugmentConfig, Config, ConfigError

WORKERS = 2  # processes or threads of contenders that can use several
NUMPY = "numpy"  # the "reader" of the settings that needs no TensorFlow

_BATCH = 8  # crops
_BLOCK = 2**20  # bytes read at once


def training_segments(settings: Mapping[str, Any], config: Config) -> list:
    """Returns the segments that a run of this config would train on."""
    from data_pipeline.splits import training_split

    segments, *_ = training_split(settings["data_dir"], config)
    if config.augment.silent_share < 1:
        from data_pipeline.volumes import with_silence  # imports TensorFlow

        return with_silence(segments, config, [settings["data_dir"]])
    return segments


def bound(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Measures an upper bound for this machine: reads the same bytes in order and converts them."""
    config = _crop_config(settings)
    files = _stem_files(settings, config)
    if others := {info.encoding for info in files} - {"pcm16"}:
        raise ConfigError(f"found {', '.join(others)} samples, expected pcm16")
    threads = settings["threads"]
    parts = [files[i::threads] for i in range(threads)]
    stem_seconds = sum(info.seconds for info in files)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        ready()
        found = repeated(lambda n: list(pool.map(lambda p: _read_all(p, n), parts)), stem_seconds)
    return {**found, "threads": threads}


def ours(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Measures our batches; tensors are not copied into NumPy arrays.

    The "reader" of the settings is one of `data_pipeline.readers`, or `NUMPY`.
    """
    config = _crop_config(settings)
    segments = training_segments(settings, config)
    reader = settings.get("reader", "mmap")
    if reader == NUMPY:
        from data_pipeline.loader import training_batches

        stream = training_batches(segments, config)
    else:
        from data_pipeline.dataset import training_dataset
        from data_pipeline.readers import reader_named

        stereo = settings.get("stereo", False)
        stream = training_dataset(segments, config, reader=reader_named(reader), stereo=stereo)
    ready()
    _read_all(_stem_files(settings, config))
    return _batches(stream, config)


def open_unmix(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Measures Open-Unmix's data sets in PyTorch's `DataLoader`, as in its own training."""
    import torch

    config = _crop_config(settings)
    with _open_unmix_dataset(settings, config) as dataset:
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=_BATCH,
            # With replacement: an epoch of the track folders has only one crop of each track, and
            # each epoch starts new processes.
            sampler=torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=10**6),
            num_workers=WORKERS,
            multiprocessing_context="fork",
        )
        ready()
        _read_all(_stem_files(settings, config))
        # The processes deliver batches in turns: take as many at a time as there are processes.
        return _batches(loader, config, at_a_time=WORKERS)


def _crop_config(settings: Mapping[str, Any]) -> Config:
    """Returns the config with the contender's crop length, augmentation and channels."""
    config = Config.from_dict(settings["config"])
    crop = round(settings["crop_seconds"] * config.model.sample_rate)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, patch_samples=crop),
        augment=AugmentConfig(**settings.get("augment", {})),
        downmix="augment" not in settings,
        random_crops=True,
        batch_size=_BATCH,
    )


def _file_names(config: Config) -> list[str]:
    """Returns the file names of all stems, in the order of `data_pipeline.dataset`."""
    return [name for stem in config.model.stems for name in config.files_of(stem)]


def _stem_files(settings: Mapping[str, Any], config: Config) -> list:
    names = _file_names(config)
    segments = training_segments(settings, config)
    return [segment.track.files[name] for segment in segments for name in names]


def _read_all(files: Iterable[Any], passes: int = 1) -> None:
    """Reads 16-bit samples in order and converts them to float32, as fast as NumPy can."""
    import numpy as np

    raw = np.empty(_BLOCK // 2, "<i2")
    floats = np.empty(_BLOCK // 2, np.float32)
    scale = np.float32(1 / 2**15)
    for info in itertools.chain.from_iterable(itertools.repeat(files, passes)):
        with open(info.path, "rb", buffering=0) as file:
            file.seek(info.data_offset)
            left = info.frames * info.frame_bytes
            while left:
                read = file.readinto(memoryview(raw).cast("B")[:left])
                np.multiply(raw[: read // 2], scale, out=floats[: read // 2])
                left -= read


def _batches(stream: Iterable[Any], config: Config, at_a_time: int = 1) -> Result:
    iterator = iter(stream)

    def take(n: int) -> None:
        for _ in range(n):
            next(iterator)

    seconds = config.model.patch_samples / config.model.sample_rate
    return repeated(take, _BATCH * len(_file_names(config)) * seconds, at_a_time)


@contextlib.contextmanager
def _open_unmix_dataset(settings: Mapping[str, Any], config: Config) -> Iterator[Any]:
    """Makes one of Open-Unmix's data sets; removes its temporary files at the end.

    The "kind" of the settings selects it: "folder" reads our data as track folders, "musdb" as
    MUSDB18-HQ, and "mp4" reads .stem.mp4 files.
    """
    sigsep.load("musdb")
    data = importlib.import_module("openunmix.data")
    seconds = float(settings["crop_seconds"])
    with tempfile.TemporaryDirectory() as folder:
        _provide_ffmpeg(Path(folder))
        if settings["kind"] == "folder":
            target, *others = (f"{name}.wav" for name in _file_names(config))
            yield data.FixedSourcesTrackFolderDataset(
                settings["data_dir"],
                target_file=target,
                interferer_files=others,
                seq_duration=seconds,
                random_chunks=True,
                random_track_mix=True,
            )
        else:
            is_wav = settings["kind"] == "musdb"
            yield data.MUSDBDataset(
                root=settings["data_dir"] if is_wav else _stem_mp4s(Path(folder)),
                is_wav=is_wav,
                seq_duration=seconds,
                random_track_mix=True,
            )


def _provide_ffmpeg(folder: Path) -> None:
    """Provides the program ffmpeg for stempeg, and replaces the program ffprobe.

    stempeg starts ffprobe for each file, and again for each crop. imageio-ffmpeg has no ffprobe, so
    PyAV answers instead, once for each file. ffprobe's time is not measured, to musdb's advantage.
    """
    import ffmpeg

    if not shutil.which("ffmpeg"):
        imageio_ffmpeg = importlib.import_module("imageio_ffmpeg")
        (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    ffmpeg.probe = functools.cache(_probe)


def _probe(path: str) -> dict[str, Any]:
    """Returns those fields of ffprobe's output that stempeg reads."""
    import av

    with av.open(path) as container:
        return {
            "streams": [
                {
                    "index": stream.index,
                    "codec_type": stream.type,
                    "channels": getattr(stream, "channels", 0),
                    "sample_rate": getattr(stream, "rate", 0),
                    "duration_ts": stream.duration,
                    "duration": float(stream.duration * stream.time_base),
                }
                for stream in container.streams
                if stream.type == "audio"
            ]
        }


def _stem_mp4s(folder: Path) -> str:
    """Makes a MUSDB18 folder in which every training track is stempeg's excerpt."""
    source = sigsep.load("stempeg").example_stem_path()
    (folder / "train").mkdir()
    for i in range(4):
        shutil.copyfile(source, folder / "train" / f"track {i}.stem.mp4")
    return str(folder)
