"""Headers of WAV files as programs write them: unknown and wrong lengths, and long headers."""

import io
import os
import struct

import numpy as np
import pytest
from audio_files import integers, salvage

from data_pipeline.errors import AudioError, EncodingError
from data_pipeline.wav import read_wav, wav_info
from data_pipeline.wav_header import wav_header

_FORMAT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 2, 8_000, 32_000, 4, 16)
_X = integers(16, 1_000)
_TRUTH = (_X / 2**15).astype(np.float32)
_DATA = _X.astype("<i2").tobytes()
_LIST = b"LIST" + struct.pack("<I4sI", 8, b"INFO", 0)
_ID3 = b"ID3\4\0\0\0\0\1\x03" + bytes(128 + 3)
# SoX, FFmpeg, lame, arecord, Python's wave module; the largest numbers without a header.
_PLACEHOLDERS = (0x7FFFF000, 0xFFFFFFFF, 0x7FFFFFFF, 2**31, 0, 0x7FFFFFFF - 44, 0xFFFFFFFF - 44)


def _wav(
    stated: int = len(_DATA),
    riff: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
    kind: bytes = b"RIFF",
) -> bytes:
    """Returns a 16-bit stereo WAV whose header states `stated` bytes of samples."""
    rest = b"WAVE" + before + _FORMAT + b"data" + struct.pack("<I", stated) + _DATA + after
    return kind + struct.pack("<I", len(rest) if riff is None else riff) + rest


def _long(stated: int) -> bytes:
    return b"ds64" + struct.pack("<IQQQI", 28, 2**64 - 1, stated, 0, 0)


def _cases() -> dict[str, bytes]:
    """Returns files of `_X` that state its length not at all, or in an unusual way."""
    cases = {
        "a tag in front": _ID3 + _wav(),
        "a chunk of odd length": _wav(before=b"note\3\0\0\0odd\0"),
        "ds64 in RIFF": _wav(before=_long(0)),
        "2 000 chunks": _wav(before=b"JUNK\1\0\0\0\0\0" * 2_000),
    }
    for stated in _PLACEHOLDERS:
        cases[f"{stated:#x}, RIFF right"] = _wav(stated)
        cases[f"{stated:#x}, RIFF too"] = _wav(stated, min(stated + 36, 2**32 - 1))
    for kind in (b"RF64", b"BW64"):
        for stated in (len(_DATA), 0, 2**64 - 1, 2**63 - 1):
            name = f"{kind.decode()} {stated:#x}"
            cases[name] = _wav(2**32 - 1, 2**32 - 1, _long(stated), kind=kind)
    return cases


@pytest.mark.parametrize("case", _cases())
def test_all_samples_are_read(tmp_path, case):
    path = tmp_path / "x.wav"
    path.write_bytes(_cases()[case])
    info = wav_info(path)
    assert (info.frames, info.plain) == (len(_X), False)
    np.testing.assert_array_equal(read_wav(info), _TRUTH)
    np.testing.assert_array_equal(read_wav(info, 7, 100), _TRUTH[7:107])
    found, samples, message = salvage(path)
    assert (found.seconds, message) == (len(_X) / 8_000, "")
    np.testing.assert_array_equal(samples, _TRUTH)


def test_a_chunk_after_the_samples_is_no_sound(tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(_wav(after=_LIST))
    assert (wav_info(path).frames, wav_info(path).plain) == (len(_X), True)
    # Samples were never written, and the header says so.
    path.write_bytes(_wav(0)[: -len(_DATA)] + _LIST)
    with pytest.raises(AudioError, match="found a WAV header without samples"):
        wav_info(path)


@pytest.mark.parametrize("stated", [len(_DATA) + 4, 2**31 - 2**13, 2**31 + 2, 2**30, 3 * 2**30])
def test_a_file_that_was_cut_is_damaged(tmp_path, stated):
    path = tmp_path / "x.wav"
    for data in (_wav(stated), _wav(stated, stated + 36), _ID3 + _wav(stated)):
        path.write_bytes(data)
        with pytest.raises(AudioError, match=r"found 1000 samples \(truncated\), expected the "):
            wav_info(path)
        assert "truncated or damaged" in salvage(path)[2]


@pytest.mark.parametrize("after", [b"", _LIST], ids=["", "a chunk"])
@pytest.mark.parametrize(
    ("stated", "truth"),
    [
        (1_000, 2**32 + 1_000),  # counted modulo 4 GiB
        (4_000_000_000, 2**33 + 4_000_000_000),
        (0x7FFFF000, 0x7FFFF000),  # by chance the number that SoX writes for unknown
    ],
)
def test_files_of_gigabytes(tmp_path, stated, truth, after):
    path = tmp_path / "x.wav"
    header = _wav(stated)[:44]
    with open(path, "wb") as file:  # takes no space
        file.write(header)
        file.truncate(44 + truth)
        file.seek(0, os.SEEK_END)
        file.write(after)
    assert wav_info(path).frames == truth // 4
    assert read_wav(path, truth // 4 - 10).shape == (10, 2)


def test_more_samples_than_the_placeholder_says(tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(_wav(0x7FFFF000)[:44])
    os.truncate(path, 44 + 0x7FFFF000 + 8_000)
    assert wav_info(path).frames == (0x7FFFF000 + 8_000) // 4


class _Counted(io.BytesIO):
    """A file that counts what is read."""

    reads = count = 0

    def read(self, size=-1):
        held = super().read(size)
        self.reads += 1
        self.count += len(held)
        return held


@pytest.mark.parametrize(
    "rest",
    [bytes(2_000_000), b"JUNK\0\0\0\0" * 250_000, b"JUNK" + struct.pack("<I", 1_900_000)],
    ids=["zeros", "empty chunks", "a long chunk"],
)
def test_a_header_without_samples_is_refused_at_once(rest):
    data = b"RIFF\0\0\0\0WAVE" + rest.ljust(2_000_000, b"\1")
    file = _Counted(data)
    with pytest.raises(AudioError, match="found a WAV header without a data chunk") as caught:
        wav_header("x.wav", file, len(data))
    assert not isinstance(caught.value, EncodingError)  # FFmpeg's libraries need not try
    assert file.reads < 30_000
    assert file.count < 100_000


def test_formats_for_other_decoders():
    for data in (b"no audio", _wav().replace(b"WAVE", b"AVI "), _ID3):
        with pytest.raises(EncodingError, match="found no WAV header, expected a WAV file"):
            wav_header("x.wav", io.BytesIO(data), len(data))
    old = _wav().replace(_FORMAT, b"fmt " + struct.pack("<IHHIIH", 14, 1, 1, 8_000, 8_000, 1))
    with pytest.raises(EncodingError, match="found WAV format 1 with 0 bits"):
        wav_header("x.wav", io.BytesIO(old), len(old))
