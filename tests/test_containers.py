"""Files with several audio streams: which one is read, and that users are told."""

import io

import av
import numpy as np
import pytest
import soundfile
from av.stream import Disposition

from data_pipeline import audio
from data_pipeline.audio_writer import write_wav
from data_pipeline.wav import read_wav
from experiments import client
from experiments.preparing.inputs import sources_of
from experiments.preparing.track import prepare_track
from sccunet.config import Config, ModelConfig


def _write_streams(path, values, default=None):
    """Writes a FLAC stream of constant samples for each value."""
    with av.open(str(path), "w", options={"default_mode": "passthrough"}) as file:
        streams = [file.add_stream("flac", rate=44_100, layout="stereo") for _ in values]
        if default is not None:
            streams[default].disposition = Disposition.default
        for stream, value in zip(streams, values, strict=True):
            samples = np.full((1, 8_000), value * 2**15, np.int16)
            frame = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
            frame.sample_rate, frame.pts = 44_100, 0
            for source in (frame, None):
                file.mux(stream.encode(source))


@pytest.mark.parametrize(("default", "chosen"), [(None, 0), (1, 1), (2, 2)])
def test_stream_marked_as_default_is_read(tmp_path, default, chosen):
    path = tmp_path / "x.mka"
    _write_streams(path, (0.125, 0.25, 0.5), default)
    with audio.recording(path) as (info, blocks):
        assert info.choice == f"found 3 audio streams, read number {chosen} (from 0)"
        assert next(blocks)[0, 0] == (0.125, 0.25, 0.5)[chosen]
    with audio.recording(path, 2) as (info, blocks):
        assert info.choice == ""
        assert next(blocks)[0, 0] == 0.5


def test_prepare_reads_the_same_stream_and_says_so(tmp_path):
    track = tmp_path / "song"
    track.mkdir()
    _write_streams(track / "vocals.mka", (0.125, 0.25), 1)
    write_wav(track / "mixture.wav", np.full((4_000, 2), 0.5), 44_100)
    warnings = prepare_track(str(tmp_path / "out"), sources_of(str(track)), 44_100)
    assert warnings == [f"{track}/vocals.mka: found 2 audio streams, read number 1 (from 0)"]
    assert (read_wav(tmp_path / "out" / "vocals.wav") == 0.25).all()


def test_client_sends_the_same_stream_and_says_so(tmp_path, capsys):
    path = tmp_path / "x.mka"
    _write_streams(path, (0.125, 0.25), 1)
    samples, _ = soundfile.read(io.BytesIO(client.wav_of(path, 44_100)))
    assert samples.shape == (4_000, 2)
    assert (samples == 0.25).all()
    warning = f"warning: {path}: found 2 audio streams, read number 1 (from 0)\n"
    assert capsys.readouterr().err == warning


@pytest.mark.slow
def test_separate_takes_a_stream_and_refuses_what_flac_cannot_store(
    tmp_path, make_run, make_identity, program
):
    config = Config(
        model=ModelConfig(
            stems=("vocals", "rest"),
            frame_length=512,
            hop_length=128,
            patch_samples=8_192,
            filters=(4, 8),
        )
    )
    run = make_run(tmp_path / "run", config, make_identity)
    songs, out = tmp_path / "songs", tmp_path / "out"
    songs.mkdir()
    _write_streams(songs / "two.mka", (0.125, 0.25), 1)
    _write_streams(songs / "joined.mka", (0.125,))  # twice as long as its header says
    (songs / "joined.mka").write_bytes((songs / "joined.mka").read_bytes() * 2)
    soundfile.write(songs / "odd rate.wav", np.zeros((9_000, 1)), 65_537)
    given = f"--model={run}", f"--output_dir={out}", "--format=flac", songs
    done = program("separate", *given)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if ": found " in line]
    assert errors == [
        f"warning: {songs}/two.mka: found 2 audio streams, read number 1 (from 0), expected"
        " --audio_stream=N if another is meant",
        f"error: {out}/odd rate/vocals.flac: found 65537 Hz for a FLAC file, expected at most 65535"
        " Hz, or a multiple of 10 Hz up to 655350 Hz",
    ]
    assert len(audio.read(out / "joined" / "vocals.flac")[0]) == 8_000
    assert audio.read(out / "two" / "vocals.flac")[0][2_000, 0] == pytest.approx(0.25, abs=0.02)
    done = program("separate", *given[:2], "--audio_stream=2", "--overwrite", songs)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if ": found " in line] == [
        f"error: {songs}/joined.mka: found 1 audio stream, expected at least 3",
        f"error: {songs}/odd rate.wav: found 1 audio stream, expected at least 3",
        f"error: {songs}/two.mka: found 2 audio streams, expected at least 3",
    ]
