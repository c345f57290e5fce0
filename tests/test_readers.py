"""Both readers against soundfile and against each other."""

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from data_pipeline import readers
from data_pipeline.augment import MEAN
from data_pipeline.wav import wav_info

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


def _read(reader, index, start, channels, gain=1.0):
    # Inside tf.data, as training runs it.
    places = tf.data.Dataset.from_tensors(
        (
            tf.constant([index], tf.int64),
            tf.constant([start], tf.int64),
            tf.constant([channels], tf.int32),
            tf.constant([gain], tf.float32),
        )
    )
    return next(iter(places.map(reader))).numpy()[0].T  # [samples, channels]


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("subtype", _SUBTYPES)
def test_memory_map_equals_soundfile(tmp_path, subtype, channels):
    info = _write(tmp_path / "a.wav", subtype, channels)
    reader = readers.mmap_reader([info], _CROP)
    for start in _PLACES:
        truth, _ = soundfile.read(info.path, _CROP, start, dtype="float32", always_2d=True)
        np.testing.assert_array_equal(_read(reader, 0, start, range(channels)), truth)
        np.testing.assert_array_equal(_read(reader, 0, start, [channels - 1]), truth[:, -1:])
        mean = truth.mean(axis=1, dtype=np.float32, keepdims=True)
        np.testing.assert_allclose(_read(reader, 0, start, [MEAN]), mean, atol=1e-7)
        louder = _read(reader, 0, start, [0, 0], gain=1.7)
        np.testing.assert_allclose(louder, 1.7 * truth[:, [0, 0]], rtol=2e-7)


@needs_tfio
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("subtype", _SUBTYPES)
def test_tensorflow_io_and_memory_map_are_identical(tmp_path, subtype, channels):
    info = _write(tmp_path / "a.wav", subtype, channels)
    ours, theirs = (make([info], _CROP) for make in (readers.mmap_reader, readers.tfio_reader))
    for start in _PLACES:
        for taken in (range(channels), [MEAN]):
            np.testing.assert_array_equal(
                _read(theirs, 0, start, taken), _read(ours, 0, start, taken)
            )


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
    start, channel, gains = [7, 7], [[0], [0]], [1.0, 2.0]
    stream = stream.map(
        lambda i: reader(
            tf.stack([i, i]), tf.constant(start, tf.int64), tf.constant(channel), tf.constant(gains)
        ),
        num_parallel_calls=8,
    )
    read = np.stack([audio.numpy() for audio in stream])  # [reads, 2, 1, samples]
    expected = values[which][:, None, None, None] * np.array(gains)[:, None, None]
    np.testing.assert_array_equal(read * 32768, np.broadcast_to(expected, read.shape))


@pytest.mark.parametrize(
    "make", [readers.mmap_reader, pytest.param(readers.tfio_reader, marks=needs_tfio)]
)
def test_files_of_different_encodings_and_channels_in_one_set(tmp_path, make):
    infos = [
        _write(tmp_path / f"{subtype}{channels}.wav", subtype, channels)
        for subtype in _SUBTYPES
        for channels in (1, 2)
    ]
    reader = make(infos, _CROP)
    for index, info in enumerate(infos):
        truth, _ = soundfile.read(info.path, _CROP, 777, dtype="float32", always_2d=True)
        np.testing.assert_array_equal(_read(reader, index, 777, range(info.channels)), truth)


def test_crops_stay_what_they_are_when_others_are_read(tmp_path):
    """Arrays that become tensors without a copy are not used again."""
    info = _write(tmp_path / "a.wav", "PCM_16", 2)
    reader = readers.mmap_reader([info], _CROP)
    starts = range(0, _FRAMES - _CROP, 1000)
    stream = tf.data.Dataset.from_tensor_slices(np.array(starts, np.int64)).map(
        lambda start: reader(
            tf.zeros([1], tf.int64), start[None], tf.constant([[0, 1]]), tf.ones([1])
        ),
        num_parallel_calls=4,
    )
    crops = [crop[0].numpy().T for crop in list(stream)]
    for start, crop in zip(starts, crops, strict=True):
        truth, _ = soundfile.read(info.path, _CROP, start, dtype="float32")
        np.testing.assert_array_equal(crop, truth)


def test_reader_of_this_installation():
    version = tuple(int(part) for part in tf.__version__.split(".")[:2])
    if version >= (2, 18):
        assert not readers.tfio_available()


def test_memory_of_crops_that_nobody_holds_is_used_again(tmp_path):
    info = _write(tmp_path / "a.wav", "PCM_16", 2)
    reader = readers.mmap_reader([info], _CROP)
    stream = tf.data.Dataset.range(100).map(
        lambda start: reader(
            tf.zeros([1], tf.int64), start[None], tf.constant([[0, 1]]), tf.ones([1])
        ),
        num_parallel_calls=2,
    )
    addresses = [crop.numpy().ctypes.data for crop in stream.prefetch(2)]
    assert len(set(addresses)) < 20
    assert len(readers._memories) < 20


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "cannot be read any more (No such file or directory)"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-400]),
            f"found {_FRAMES - 100} samples, expected {_FRAMES} as before: it was cut short",
        ),
    ],
)
def test_a_file_that_vanishes_or_is_cut_short_is_named(tmp_path, spoil, reason):
    info = _write(tmp_path / "a.wav", "PCM_16", 2)
    reader = readers.mmap_reader([info], _CROP)
    for start in (0, _FRAMES - _CROP):
        _read(reader, 0, start, [0])
    spoil(tmp_path / "a.wav")
    for start in (0, _FRAMES - _CROP):  # the crop's own bytes may be there still
        with pytest.raises(tf.errors.OpError) as caught:
            _read(reader, 0, start, [0])
        assert f"AudioError: {info.path}: {reason}" in str(caught.value)
