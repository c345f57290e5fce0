"""The player's server: what its page asks for, by HTTP."""

import asyncio
import contextlib
import json
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from experiments.playing import downloads, models, pictures
from experiments.playing.songs import DONE, Song, Songs, TooManySongsError
from sccunet.checks import counted

PAGE = Path(__file__).parent / "static"
_MOST_FRAMES = 1 << 18  # in one answer
_MOST_COLUMNS, _ROWS = 2048, 192
_BEAT = 0.25  # seconds between looks at a song; a page that is gone is noticed then


def make_app(
    songs: Songs,
    separators: models.Separators,
    given: Path | None,
    max_bytes: int,
    closing: Callable[[], bool] = lambda: False,
) -> Starlette:
    """Returns the application, without its protection.

    Args:
      songs: where songs are kept.
      separators: the models.
      given: a recording or a folder of stems, which the page opens at once.
      max_bytes: of an upload.
      closing: whether the server ends, which event streams must not delay.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(_BEAT)
                songs.sweep()

        task = asyncio.create_task(sweep())
        yield
        task.cancel()

    app = Starlette(
        routes=[
            Route("/about", _about),
            Route("/songs", _upload, methods=["POST"]),
            Route("/songs/given", _open_given, methods=["POST"]),
            Route("/songs/{key}", _remove, methods=["DELETE"]),
            Route("/songs/{key}/again", _again, methods=["POST"]),
            Route("/songs/{key}/events", _events),
            Route("/songs/{key}/samples", _samples),
            Route("/songs/{key}/{kind}.png", _picture),
            Route("/songs/{key}/stem.wav", _stem),
            Route("/songs/{key}/stems.zip", _stems),
            Route("/songs/{key}/mix.wav", _mix),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        exception_handlers={TooManySongsError: _too_many},
        lifespan=lifespan,
    )
    app.state.songs, app.state.separators, app.state.given = songs, separators, given
    app.state.max_bytes, app.state.closing = max_bytes, closing
    return app


def _too_many(request: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), 503)


def _about(request: Request) -> Response:
    state = request.app.state
    return JSONResponse(
        {
            "models": [models.described(path) for path in state.separators.models],
            "masks": models.masks(),
            "max_bytes": state.max_bytes,
            "given": state.given.name if state.given else "",
        }
    )


async def _upload(request: Request) -> Response:
    """Receives a recording as the request's body, to the disk."""
    state = request.app.state
    name = request.query_params.get("name", "")[:200] or "recording"
    too_large = HTTPException(
        413, f"{name}: found a larger file, expected at most {state.max_bytes >> 20} MiB."
    )
    if int(request.headers.get("content-length", 0)) > state.max_bytes:
        raise too_large
    song: Song = state.songs.new(name, _choice(request))
    try:
        written = 0
        with song.shown(), song.path.open("wb") as file:
            async for part in request.stream():
                written += len(part)
                if written > state.max_bytes:
                    raise too_large
                await run_in_threadpool(file.write, part)
    except OSError as error:
        state.songs.remove(song)
        raise HTTPException(507, f"{name}: cannot be stored ({error.strerror}).") from error
    except BaseException:
        state.songs.remove(song)
        raise
    state.songs.start(song)
    return JSONResponse({"key": song.key}, 201)


async def _open_given(request: Request) -> Response:
    """Opens what was named on the command line."""
    state = request.app.state
    if not state.given:
        raise HTTPException(404, "No file was given to sccunet player.")
    choice = None if state.given.is_dir() else _choice(request)
    song = state.songs.new(state.given.name, choice, state.given)
    state.songs.start(song)
    return JSONResponse({"key": song.key}, 201)


async def _again(request: Request) -> Response:
    song = _song(request)
    if song.choice is None:
        raise HTTPException(400, "These stems were not separated here.")
    new = request.app.state.songs.again(song, _choice(request))
    return JSONResponse({"key": new.key}, 201)


async def _remove(request: Request) -> Response:
    request.app.state.songs.remove(_song(request))
    return Response(status_code=204)


async def _events(request: Request) -> Response:
    """Sends the song's state whenever it changes; the song knows from this that a page is there."""
    song, state = _song(request), request.app.state

    async def sent() -> AsyncIterator[str]:
        last = None
        with song.shown():
            while not (song.ended.is_set() or state.closing() or await request.is_disconnected()):
                now = json.dumps(state.songs.state_of(song))
                yield ":\n\n" if now == last else f"data: {now}\n\n"
                last = now
                await asyncio.sleep(_BEAT)

    return StreamingResponse(sent(), media_type="text/event-stream")


def _samples(request: Request) -> Response:
    """Sends what is heard of all tracks, float32 [tracks, 2, frames]."""
    tracks = _tracks(request)
    start = _number(request, "start", 0, tracks.frames)
    frames = _number(request, "frames", 1, _MOST_FRAMES)
    blocks = [downloads.stereo(tracks.read(i, start, frames)) for i in range(len(tracks.names))]
    frames = min(map(len, blocks))
    planes = np.stack([block[:frames].T for block in blocks])
    return Response(planes.tobytes(), media_type="application/octet-stream")


def _picture(request: Request) -> Response:
    """Draws the waveform or the spectrogram of a track."""
    tracks, track = _tracks(request), _track(request)
    frames = _number(request, "frames", 1, 1 << 48)
    columns = _number(request, "columns", 1, _MOST_COLUMNS)
    colour = [_number(request, name, 0, 255) for name in ("red", "green", "blue")]
    if request.path_params["kind"] == "spectrogram":
        ink = pictures.spectrogram(tracks, track, frames, columns, _ROWS)
    else:
        ink = pictures.waveform(tracks.peaks(track, frames, columns), _ROWS)
    return Response(pictures.png(ink, colour), media_type="image/png")


def _stem(request: Request) -> Response:
    song, tracks = _song(request), _tracks(request, whole=True)
    track = _track(request)
    name = f"{Path(song.name).stem} - {tracks.names[track]}.wav"
    return _file(name, downloads.wav(tracks, track), _wav_bytes(tracks, tracks.channels))


def _stems(request: Request) -> Response:
    song, tracks = _song(request), _tracks(request, whole=True)
    return _file(f"{Path(song.name).stem}.zip", downloads.archive(tracks))


def _mix(request: Request) -> Response:
    song, tracks = _song(request), _tracks(request, whole=True)
    gains, pans = (_factors(request, name, len(tracks.names) - 1) for name in ("gains", "pans"))
    if any(not 0 <= gain <= 10 for gain in gains) or any(not -1 <= pan <= 1 for pan in pans):
        raise HTTPException(400, "Found a mix that no faders give.")
    name = f"{Path(song.name).stem} - mix.wav"
    return _file(name, downloads.mix(tracks, gains, pans), _wav_bytes(tracks, 2))


def _wav_bytes(tracks, channels: int) -> int:
    head = len(downloads.wav_head(tracks.frames, channels, tracks.sample_rate))
    return head + 4 * tracks.frames * channels


def _file(name: str, content: Iterator[bytes], size: int | None = None) -> Response:
    """Returns a file to be saved under a name."""
    quoted = urllib.parse.quote(name, safe="")
    headers = {"Content-Disposition": f"attachment; filename*=utf-8''{quoted}"}
    if size is not None:
        headers["Content-Length"] = str(size)
    return StreamingResponse(content, headers=headers, media_type="application/octet-stream")


def _song(request: Request) -> Song:
    try:
        return request.app.state.songs[request.path_params["key"]]
    except KeyError as error:
        raise HTTPException(404, "This song is no longer here.") from error


def _tracks(request: Request, whole: bool = False):
    """Returns the tracks of the request's song, if there are any; with `whole`, if it is done."""
    song = _song(request)
    if not song.tracks or (whole and song.state != DONE):
        raise HTTPException(409, "This song is not done yet.")
    return song.tracks


def _choice(request: Request) -> tuple[int, str]:
    """Returns the request's model and mask."""
    offered = request.app.state.separators.models
    mask = request.query_params.get("mask", "none")
    if mask not in models.masks():
        raise HTTPException(400, "Found an unknown mask.")
    return _number(request, "model", 0, len(offered) - 1, 0), mask


def _track(request: Request) -> int:
    return _number(request, "track", 0, len(_tracks(request).names) - 1)


def _number(request: Request, name: str, least: int, most: int, default: int | None = None) -> int:
    text = request.query_params.get(name, default)
    try:
        if least <= (number := int(text)) <= most:
            return number
    except (TypeError, ValueError):
        pass
    raise HTTPException(400, f"{name}: found {text!r:.40}, expected {least} to {most}.")


def _factors(request: Request, name: str, count: int) -> list[float]:
    """Returns the numbers of a list with commas between them."""
    text = request.query_params.get(name, "")
    try:
        found = [float(each) for each in text.split(",")]
        if len(found) == count:
            return found
    except ValueError:
        pass
    raise HTTPException(400, f"{name}: found {text!r:.40}, expected {counted(count, 'number')}.")
