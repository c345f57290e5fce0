"""Both readers against soundfile and against each other."""

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from data_pipeline import readers
from data_pipeline.audio import wav_info

_FRAMES, _CROP = 30_000, 4_096
_SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]
_PLACES = [0, 1, 12_345, _FRAMES - _CROP]

needs_tfio = pytest.mark.skipif(
    not readers.tfio_available(), reason="tensorflow-io does not load with this TensorFlow"
)


def _write(path, subtype, channels):
    signal = np.random.default_rng(channels).uniform(-1, 1, (_FRAMES, channels))
    soundfile.write(path, signal, 44_100, subtype)
    return wav_info(path)


def _read(reader, index, start):
    # Inside tf.data, as training runs it.
    places = tf.data.Dataset.from_tensors(
        (tf.constant(index, tf.int64), tf.constant(start, tf.int64))
    )
    return next(iter(places.map(reader))).numpy()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("subtype", _SUBTYPES)
def test_memory_map_equals_soundfile(tmp_path, subtype, channels):
    info = _write(tmp_path / "a.wav", subtype, channels)
    reader = readers.mmap_reader([info], _CROP)
    for start in _PLACES:
        truth, _ = soundfile.read(info.path, _CROP, start, dtype="float32", always_2d=True)
        np.testing.assert_array_equal(_read(reader, 0, start), truth)


@needs_tfio
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("subtype", _SUBTYPES)
def test_tensorflow_io_and_memory_map_are_identical(tmp_path, subtype, channels):
    info = _write(tmp_path / "a.wav", subtype, channels)
    ours, theirs = (make([info], _CROP) for make in (readers.mmap_reader, readers.tfio_reader))
    for start in _PLACES:
        np.testing.assert_array_equal(_read(theirs, 0, start), _read(ours, 0, start))


@pytest.mark.parametrize(
    "make", [readers.mmap_reader, pytest.param(readers.tfio_reader, marks=needs_tfio)]
)
def test_parallel_reads_do_not_get_into_each_other(tmp_path, make):
    values = np.arange(20) * 100
    for value in values:
        soundfile.write(tmp_path / f"{value}.wav", np.full((5000, 1), value, np.int16), 44_100)
    reader = make([wav_info(tmp_path / f"{value}.wav") for value in values], 100)
    which = np.random.default_rng(0).integers(0, len(values), 2000)
    stream = tf.data.Dataset.from_tensor_slices(which)
    stream = stream.map(lambda i: reader(i, tf.constant(7, tf.int64)), num_parallel_calls=8)
    read = np.stack([audio.numpy() for audio in stream])
    np.testing.assert_array_equal(
        read[..., 0] * 32768, np.broadcast_to(values[which][:, None], (2000, 100))
    )


def test_files_of_different_encodings_and_channels_in_one_set(tmp_path):
    infos = [
        _write(tmp_path / f"{subtype}{channels}.wav", subtype, channels)
        for subtype in _SUBTYPES
        for channels in (1, 2)
    ]
    reader = readers.best_reader(infos, _CROP)
    for index, info in enumerate(infos):
        truth, _ = soundfile.read(info.path, _CROP, 777, dtype="float32", always_2d=True)
        np.testing.assert_array_equal(_read(reader, index, 777), truth)


def test_reader_of_this_installation():
    version = tuple(int(part) for part in tf.__version__.split(".")[:2])
    if version >= (2, 18):
        assert not readers.tfio_available()
