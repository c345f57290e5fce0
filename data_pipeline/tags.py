"""Copies tags and the cover from a recording to files of its stems, with mutagen.

mutagen is optional, and imported only where it is used. Tags that cannot be read or written are
left out: they are no reason not to separate.
"""

import base64
import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline import containers

# Name, as in Vorbis comments -> frame of ID3, atom of MP4.
_FIELDS = {
    "title": ("TIT2", "\xa9nam"),
    "artist": ("TPE1", "\xa9ART"),
    "album": ("TALB", "\xa9alb"),
    "albumartist": ("TPE2", "aART"),
    "composer": ("TCOM", "\xa9wrt"),
    "genre": ("TCON", "\xa9gen"),
    "date": ("TDRC", "\xa9day"),
    "tracknumber": ("TRCK", "trkn"),
    "discnumber": ("TPOS", "disk"),
    "bpm": ("TBPM", "tmpo"),
    "initialkey": ("TKEY", "----:com.apple.iTunes:initialkey"),
    "isrc": ("TSRC", "----:com.apple.iTunes:ISRC"),
    "copyright": ("TCOP", "cprt"),
    "comment": ("COMM", "\xa9cmt"),
}
_COUNTED = {"tracknumber": "tracktotal", "discnumber": "disctotal"}
_FRONT_COVER = 3
# A WAV of more bytes has no room for a cover.
_LARGEST_WAV = 2**32 - 2**26


@dataclasses.dataclass(frozen=True)
class Tags:
    """What a recording is called, and by whom.

    Attributes:
      fields: name, one of `_FIELDS` -> values. Numbers may have their total: "3/12".
      cover: MIME type and content of a picture, or None.
    """

    fields: Mapping[str, Sequence[str]]
    cover: tuple[str, bytes] | None = None


def has_tags(path: str | os.PathLike) -> bool:
    """Whether a file has a title, an artist or an album; without mutagen."""
    with contextlib.suppress(Exception), containers.opened(os.fspath(path)) as container:
        found = [container.metadata, *(stream.metadata for stream in container.streams.audio)]
        return any(name.lower() in ("title", "artist", "album") for tags in found for name in tags)
    return False


def read_tags(path: str | os.PathLike) -> Tags | None:
    """Reads ID3, Vorbis comments or MP4's tags; None if there are none, or mutagen is missing."""
    with contextlib.suppress(Exception):  # whatever the library finds in damaged tags
        import mutagen

        file = mutagen.File(os.fspath(path))
        if file is not None and file.tags:
            found = Tags(*_content(file))
            return found if found.fields or found.cover else None
    return None


def _content(file: Any) -> tuple[dict[str, list[str]], tuple[str, bytes] | None]:
    from mutagen import flac, id3, mp4

    tags, pictures = file.tags, []
    if isinstance(tags, id3.ID3):
        pictures = tags.getall("APIC")
        get = _of_id3
    elif isinstance(tags, mp4.MP4Tags):
        types = {mp4.MP4Cover.FORMAT_JPEG: "image/jpeg", mp4.MP4Cover.FORMAT_PNG: "image/png"}
        covers = tags.get("covr", [])
        cover = (types[covers[0].imageformat], bytes(covers[0])) if covers else None
        return _fields(tags, _of_mp4), cover
    else:
        coded = tags.get("metadata_block_picture", [])
        pictures = [flac.Picture(base64.b64decode(picture)) for picture in coded]
        pictures += getattr(file, "pictures", [])
        get = _of_vorbis
    pictures.sort(key=lambda picture: picture.type != _FRONT_COVER)
    return _fields(tags, get), (pictures[0].mime, pictures[0].data) if pictures else None


def _fields(tags: Any, get: Any) -> dict[str, list[str]]:
    found = {name: [value for value in get(tags, name) if value] for name in _FIELDS}
    return {name: values for name, values in found.items() if values}


def _of_id3(tags: Any, name: str) -> list[str]:
    frames = tags.getall(_FIELDS[name][0])
    if name == "comment":  # others are notes of programs
        frames = [frame for frame in frames if not frame.desc]
    return [
        str(value)
        for frame in frames[:1]
        for value in (frame.genres if name == "genre" else frame.text)
    ]


def _of_mp4(tags: Any, name: str) -> list[str]:
    values = tags.get(_FIELDS[name][1], [])
    if name in _COUNTED:
        return ["/".join(str(number) for number in value if number) for value in values]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _of_vorbis(tags: Any, name: str) -> list[str]:
    values = list(tags.get(name, []))
    total = tags.get(_COUNTED[name], []) if name in _COUNTED else []
    if values and total and "/" not in values[0]:
        values[0] += f"/{total[0]}"
    return values


def write_tags(path: str | os.PathLike, tags: Tags, stem: str | None) -> None:
    """Writes tags into a file of a stem, one of `formats.WRITABLE`, which has none yet.

    Args:
      path: the file.
      tags: of the recording.
      stem: name that is added to the title: "Song (vocals)"; None adds none.

    Raises:
      OSError: if the file cannot be written any more.
    """
    import mutagen
    from mutagen import id3, mp4

    path = os.fspath(path)
    fields = dict(tags.fields)
    if stem is not None and "title" in fields:
        fields["title"] = [f"{title} ({stem})" for title in fields["title"]]
    if path.endswith(".wav") and os.path.getsize(path) > _LARGEST_WAV:
        return
    try:
        file = mutagen.File(path)
        if file.tags is None:
            file.add_tags()
        put, put_cover = _put_vorbis, _put_vorbis_cover
        if isinstance(file.tags, id3.ID3):
            put, put_cover = _put_id3, _put_id3_cover
        elif isinstance(file.tags, mp4.MP4Tags):
            put, put_cover = _put_mp4, _put_mp4_cover
        for name, values in fields.items():
            with contextlib.suppress(ValueError):  # that this kind of tags cannot hold
                put(file.tags, name, values)
        if tags.cover:
            put_cover(file, *tags.cover)
        file.save()
    except Exception as error:  # the library's, about what it cannot write
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error


def _put_id3(tags: Any, name: str, values: Sequence[str]) -> None:
    from mutagen import id3

    frame = _FIELDS[name][0]
    settings = {"lang": "eng", "desc": ""} if name == "comment" else {}
    tags.add(getattr(id3, frame)(encoding=id3.Encoding.UTF8, text=values, **settings))


def _put_id3_cover(file: Any, mime: str, content: bytes) -> None:
    from mutagen import id3

    file.tags.add(id3.APIC(encoding=0, mime=mime, type=_FRONT_COVER, desc="", data=content))


def _put_mp4(tags: Any, name: str, values: Sequence[str]) -> None:
    from mutagen import mp4

    atom = _FIELDS[name][1]
    if name in _COUNTED:
        numbers = [int(number) for number in values[0].split("/")]
        tags[atom] = [(*numbers, 0)[:2]]
    elif name == "bpm":
        tags[atom] = [round(float(values[0]))]
    elif atom.startswith("----"):
        tags[atom] = [mp4.MP4FreeForm(value.encode()) for value in values]
    else:
        tags[atom] = list(values)


def _put_mp4_cover(file: Any, mime: str, content: bytes) -> None:
    from mutagen.mp4 import MP4Cover

    kinds = {"image/jpeg": MP4Cover.FORMAT_JPEG, "image/png": MP4Cover.FORMAT_PNG}
    if mime in kinds:
        file.tags["covr"] = [MP4Cover(content, kinds[mime])]


def _put_vorbis(tags: Any, name: str, values: Sequence[str]) -> None:
    number, _, total = values[0].partition("/")
    if name in _COUNTED and total:
        tags[name], tags[_COUNTED[name]] = number, total
    else:
        tags[name] = list(values)


def _put_vorbis_cover(file: Any, mime: str, content: bytes) -> None:
    from mutagen.flac import FLAC, Picture

    picture = Picture()
    picture.type, picture.mime, picture.data = _FRONT_COVER, mime, content
    if isinstance(file, FLAC):
        file.add_picture(picture)
    else:
        coded = base64.b64encode(picture.write()).decode()
        file.tags["metadata_block_picture"] = [coded]
