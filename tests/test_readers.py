"""Both readers against soundfile and against each other."""

import functools
import os
import resource
import struct

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from data_pipeline import mmap_reader, readers, tfio_reader
from data_pipeline.draws import MEAN
from data_pipeline.errors import AudioError
from data_pipeline.wav import wav_info
from sccunet.config import ConfigError

_FRAMES, _CROP = 30_000, 4_096
_SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]
_PLACES = [0, 1, 12_345, _FRAMES - _CROP]

needs_tfio = pytest.mark.skipif(
    not tfio_reader.available(), reason="tensorflow-io does not load with this TensorFlow"
)
_MARKED = [
    pytest.param(name, marks=needs_tfio if name == "tfio" else ()) for name in readers.READERS
]
each_reader = pytest.mark.parametrize("name", _MARKED)
each_other_reader = pytest.mark.parametrize("name", _MARKED[1:])


def _write(path, subtype, channels, endian="FILE"):
    signal = np.random.default_rng(channels).uniform(-1, 1, (_FRAMES, channels))
    soundfile.write(path, signal, 44_100, subtype, endian)
    return wav_info(path)


@pytest.fixture(scope="module")
def infos(tmp_path_factory):
    """A file of every encoding with one, two and three channels."""
    folder = tmp_path_factory.mktemp("readers")
    return [
        _write(folder / f"{subtype}{channels}.wav", subtype, channels)
        for subtype in _SUBTYPES
        for channels in (1, 2, 3)
    ]


def _crops(reader, places):
    """Reads crops [samples, channels] in tf.data, as in training.

    Each place is (file, start, channels, gain), all with the same number of channels.
    """
    types = (tf.int64, tf.int64, tf.int32, tf.float32)
    columns = (tf.constant(c, t) for c, t in zip(zip(*places, strict=True), types, strict=True))
    stream = tf.data.Dataset.from_tensor_slices(tuple(columns)).batch(1, drop_remainder=True)
    return [crops[0].T for crops in stream.map(reader).as_numpy_iterator()]


def _read(reader, index, start, channels):
    (crop,) = _crops(reader, [(index, start, channels, 1.0)])
    return crop


def _truth(info, start):
    return soundfile.read(info.path, _CROP, start, dtype="float32", always_2d=True)[0]


def _places(infos, channels, gain=1.0):
    """Returns crops of all files, from start to end, with the given channels of each."""
    return [(i, start, channels, gain) for i in range(len(infos)) for start in _PLACES]


def _check(reader, infos, channels, expected, rtol=0.0, atol=0.0, gain=1.0):
    places = _places(infos, channels, gain)
    for crop, (i, start, *_) in zip(_crops(reader, places), places, strict=True):
        np.testing.assert_allclose(
            crop,
            expected(_truth(infos[i], start)),
            rtol=rtol,
            atol=atol,
            err_msg=f"{infos[i].path}, {channels} from sample {start}",
        )


def test_memory_map_equals_soundfile(infos, monkeypatch):
    monkeypatch.setattr(mmap_reader, "_BLOCK", 1_000)  # several in a crop, the last one shorter
    reader = mmap_reader.mmap_reader(infos, _CROP)
    _check(reader, infos, [0], lambda truth: truth[:, :1])
    _check(reader, infos, [MEAN], lambda x: x.mean(1, np.float32)[:, None], 1e-7, 1e-7)
    _check(reader, infos, [0, 0], lambda x: 1.7 * x[:, [0, 0]], rtol=2e-7, gain=1.7)
    several = [info for info in infos if info.channels > 1]
    _check(mmap_reader.mmap_reader(several, _CROP), several, [1, 0], lambda x: x[:, [1, 0]])
    three = [info for info in infos if info.channels == 3]
    _check(mmap_reader.mmap_reader(three, _CROP), three, [0, 1, 2], lambda x: x)


@each_other_reader
def test_memory_map_and_others_are_identical(infos, name):
    for channels, least in (([MEAN], 1), ([0], 1), ([0, 1], 2)):
        files = [info for info in infos if least <= info.channels <= 2]
        assert all(info.plain for info in files)
        ours, theirs = (
            _crops(readers.reader_named(each)(files, _CROP), _places(files, channels))
            for each in ("mmap", name)
        )
        np.testing.assert_array_equal(theirs, ours)


@each_reader
def test_parallel_reads_do_not_disturb_each_other(tmp_path, name):
    values, folder = np.arange(20) * 100, tmp_path / "[x] *? caf\udce9"  # not UTF-8
    folder.mkdir()
    for value in values:
        soundfile.write(tmp_path / "one.wav", np.full((5000, 1), value, np.int16), 44_100)
        (tmp_path / "one.wav").rename(folder / f"{value}.wav")
    reader = readers.reader_named(name)(
        [wav_info(folder / f"{value}.wav") for value in values], 100
    )
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


@each_reader
def test_headers_that_only_our_parser_reads(tmp_path, name):
    info = _write(tmp_path / "x.wav", "PCM_16", 2)
    data, at = (tmp_path / "x.wav").read_bytes(), info.data_offset
    heads = [data[: at - 4] + struct.pack("<I", n) for n in (0, 0x7FFFF000, 2**31, 2**32 - 1)]
    heads.append(data[: at - 8] + b"note\1\0\0\0!\0" + data[at - 8 : at])
    heads.append(b"ID3\4\0\0\0\0\0\5a tag" + data[:at])
    folder = tmp_path / os.fsdecode(b"lat\xe9")  # not UTF-8
    folder.mkdir()
    paths = [folder / f"{i}.wav" for i in range(len(heads))]
    for path, head in zip(paths, heads, strict=True):
        path.write_bytes(head + data[at:])
    infos = [*map(wav_info, paths), _write(tmp_path / "rifx.wav", "PCM_16", 2, "BIG"), info]
    reader = readers.reader_named(name)(infos, _CROP)
    crops = _crops(reader, [(i, 10_000 + i, [0, 1], 1.0) for i in range(len(infos))])
    for i, crop in enumerate(crops):
        np.testing.assert_array_equal(crop, _truth(info, 10_000 + i))


@pytest.fixture
def few_descriptors():
    """Lets this process open few files; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 2 * len(os.listdir("/proc/self/fd")) + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    yield few
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@each_reader
def test_more_files_than_a_process_may_open(tmp_path, monkeypatch, few_descriptors, name):
    make = functools.lru_cache(mmap_reader._most_maps())
    monkeypatch.setattr(mmap_reader, "_mapped", make(mmap_reader._mapped.__wrapped__))
    info = _write(tmp_path / "0.wav", "PCM_16", 1)
    paths = [tmp_path / f"{i}.wav" for i in range(few_descriptors + 50)]
    for path in paths[1:]:
        os.link(paths[0], path)
    reader = readers.reader_named(name)([wav_info(path) for path in paths], _CROP)
    crops = _crops(reader, [(i, i, [0], 1.0) for i in range(len(paths))])
    truth = soundfile.read(info.path, dtype="float32", always_2d=True)[0]
    for start, crop in enumerate(crops):
        np.testing.assert_array_equal(crop, truth[start : start + _CROP])


def test_most_descriptors_are_left_to_others():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 2**15 if soft == resource.RLIM_INFINITY else soft
    assert 0 < mmap_reader._mapped.cache_info().maxsize <= limit // 2


def test_a_file_that_is_replaced_is_mapped_again(tmp_path):
    path = tmp_path / "a.wav"
    for value in (1, 2):
        soundfile.write(tmp_path / "new.wav", np.full(_CROP, value, np.int16), 44_100)
        os.replace(tmp_path / "new.wav", path)
        crop = _read(mmap_reader.mmap_reader([wav_info(path)], _CROP), 0, 0, [0])
        np.testing.assert_array_equal(crop, value / 2**15)


def test_nothing_is_read_for_silence(tmp_path):
    info = _write(tmp_path / "a.wav", "PCM_16", 2)
    os.remove(info.path)
    (crop,) = _crops(mmap_reader.mmap_reader([info], _CROP), [(0, 0, [0, 1], 0.0)])
    np.testing.assert_array_equal(crop, np.zeros((_CROP, 2)))


def test_crops_stay_unchanged_when_others_are_read(tmp_path):
    """Arrays that became tensors without a copy are not used again."""
    info = _write(tmp_path / "a.wav", "PCM_16", 2)
    reader = mmap_reader.mmap_reader([info], _CROP)
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


def test_readers_by_name(monkeypatch):
    assert readers.reader_named("mmap") is mmap_reader.mmap_reader
    with pytest.raises(ConfigError) as caught:
        readers.reader_named("scipy")
    names = ", ".join(readers.READERS)
    assert str(caught.value) == f"--reader: found 'scipy', expected one of {names}"
    monkeypatch.setattr(tfio_reader, "available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        readers.reader_named("tfio")
    assert str(caught.value) == (
        f"--reader=tfio: found TensorFlow {tf.__version__} without a tensorflow-io that loads,"
        " expected TensorFlow 2.17 (Python 3.11 or 3.12) with"
        " pip install 'tensorflow==2.17.*' tensorflow-io==0.37.1, or --reader=mmap"
    )


def test_memory_of_released_crops_is_used_again(tmp_path):
    info = _write(tmp_path / "a.wav", "PCM_16", 2)
    reader = mmap_reader.mmap_reader([info], _CROP)
    stream = tf.data.Dataset.range(100).map(
        lambda start: reader(
            tf.zeros([1], tf.int64), start[None], tf.constant([[0, 1]]), tf.ones([1])
        ),
        num_parallel_calls=2,
    )
    addresses = [crop.numpy().ctypes.data for crop in stream.prefetch(2)]
    assert len(set(addresses)) < 20
    assert len(mmap_reader._memories) < 20


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
    _write(tmp_path / "a.wav", "PCM_16", 2)
    path = tmp_path / os.fsdecode(b"lat\xe9.wav")  # not UTF-8
    info = wav_info((tmp_path / "a.wav").rename(path))
    reader = mmap_reader.mmap_reader([info], _CROP)
    for start in (0, _FRAMES - _CROP):
        _read(reader, 0, start, [0])
    spoil(path)
    for start in (0, _FRAMES - _CROP):  # the crop's own bytes may still exist
        with pytest.raises(AudioError) as caught, readers.plain_errors():
            _read(reader, 0, start, [0])
        assert str(caught.value) == f"{tmp_path}/lat\\udce9.wav: {reason}"
