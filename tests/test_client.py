"""The client of TensorFlow Serving, against substitute servers (tests/model_server.py)."""

import base64
import io
import json
import re
import socket
import threading
import urllib.request

import grpc
import model_server
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis import (
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from experiments import client
from experiments import serving as tf_serving
from experiments.serving import ServingError
from sccunet import build_model
from sccunet.config import Config, ModelConfig
from sccunet.export import WARMUP
from sccunet.runs import METADATA
from sccunet.separation import Separator

_RATE = 44_100
_TINY = {"frame_length": 256, "hop_length": 64, "patch_samples": 4096, "filters": (3, 4)}
_CONFIG = Config(
    model=ModelConfig(stems=("vocals", "rest"), **_TINY), sources={"rest": ("drums", "bass")}
)
_SINGLE = Config(model=ModelConfig(stems=("vocals",), **_TINY))
_SEPARATE = {"rest": tf_serving.separate_rest, "grpc": tf_serving.separate_grpc}
_METADATA = {"rest": tf_serving.metadata_rest, "grpc": tf_serving.metadata_grpc}
_PREDICT = {"rest": tf_serving.predict_rest, "grpc": tf_serving.predict_grpc}
both = pytest.mark.parametrize("protocol", ["rest", "grpc"])
# With gRPC, the program imports TensorFlow.
both_programs = pytest.mark.parametrize(
    "protocol", ["rest", pytest.param("grpc", marks=pytest.mark.slow)]
)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture(scope="module")
def unet(randomise):
    return randomise(build_model(_CONFIG))


@pytest.fixture(scope="module")
def version(unet, export_unchecked, tmp_path_factory):
    return export_unchecked(unet, _CONFIG, tmp_path_factory.mktemp("served") / "sccunet")


@pytest.fixture(scope="module")
def serving(version):
    with model_server.serving(sccunet=version) as servers:
        yield servers


def _wav(samples, channels, rate=_RATE, subtype="PCM_16", seed=0):
    """Noise with a silent second half, as the bytes of a file."""
    noise = 0.1 * np.random.default_rng(seed).standard_normal((samples, channels))
    noise[samples // 2 :] = 0
    file = io.BytesIO()
    soundfile.write(file, noise, rate, subtype, format="WAV")
    return file.getvalue()


def _check(stems, wav, unet, config=_CONFIG):
    """Checks that 16-bit stems of a WAV file equal those of the model in memory."""
    waveform, _ = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)
    truth = Separator.from_model(unet, config)(waveform, _RATE)
    assert sorted(stems) == sorted(truth)
    for stem, file in stems.items():
        assert soundfile.info(io.BytesIO(file)).subtype == "PCM_16"
        found, rate = soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True)
        assert rate == _RATE
        assert found.shape == waveform.shape
        assert len(found) == 1 or np.abs(found).max() > 0.01
        np.testing.assert_allclose(
            found, np.clip(truth[stem], -1, 1), rtol=0, atol=1.01 / 32768, err_msg=stem
        )


@both
def test_stems_are_those_of_the_model_in_memory(serving, unet, protocol):
    for samples, channels in ((1, 1), (500, 2), (4096, 1), (9001, 2), (30_000, 3)):
        wav = _wav(samples, channels, seed=samples)
        stems = _SEPARATE[protocol](getattr(serving, protocol), wav)
        _check(stems, wav, unet)


@both
def test_requests_fit_the_signatures(serving, version, protocol):
    server, wav = getattr(serving, protocol), _wav(100, 1)
    serving.requests.clear()
    _SEPARATE[protocol](server, wav, model_version=1)
    _METADATA[protocol](server)
    first, second = serving.requests
    assert first.model_spec.name == second.model_spec.name == "sccunet"
    assert first.model_spec.version.value == 1
    assert not second.model_spec.HasField("version")
    [meta] = SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs
    for request, name in ((first, "separate_wav"), (second, "metadata")):
        assert request.model_spec.signature_name == name
        signature = meta.signature_def[name]
        assert set(request.inputs) == set(signature.inputs)
        for key, tensor in request.inputs.items():
            assert tensor.dtype == signature.inputs[key].dtype
            shape = tf.TensorShape(tensor.tensor_shape)
            assert shape == [1]
            assert shape.is_compatible_with(signature.inputs[key].tensor_shape)
    assert list(first.inputs["wav_bytes"].string_val) == [wav]


@both
def test_metadata(serving, version, protocol):
    text = _METADATA[protocol](getattr(serving, protocol))
    assert text == (version / METADATA).read_text()
    assert json.loads(text)["stems"] == ["vocals", "rest"]


@pytest.mark.slow
def test_model_of_one_stem(randomise, export_unchecked, tmp_path):
    """TensorFlow Serving's REST interface does not name a single output."""
    unet, wav = randomise(build_model(_SINGLE)), _wav(5000, 2)
    version = export_unchecked(unet, _SINGLE, tmp_path / "a base", version=7)
    with model_server.serving(**{"one stem": version}) as servers:
        for protocol, separate in _SEPARATE.items():
            stems = separate(getattr(servers, protocol), wav, model_name="one stem")
            assert list(stems) == ["vocals"]
            _check(stems, wav, unet, _SINGLE)
            named = {"model_name": "one stem", "model_version": 7}
            assert separate(getattr(servers, protocol), wav, **named) == stems


@pytest.mark.slow
def test_messages_beyond_4_mib(serving):
    wav = _wav(24 * _RATE, 2)
    assert len(wav) > 4 * 2**20
    stems = tf_serving.separate_grpc(serving.grpc, wav)
    assert {stem: len(file) for stem, file in stems.items()} == {
        "vocals": len(wav),
        "rest": len(wav),
    }
    assert tf_serving.separate_rest(serving.rest, wav) == stems


def test_rows_and_columns_are_equivalent_for_every_signature(serving):
    """REST users may send either; every signature has an input, which REST requires."""
    model, rng = _CONFIG.model, np.random.default_rng(0)
    inputs = {
        "serving_default": {"waveform": rng.standard_normal((2, 300, 2)).tolist()},
        "separate_wav": {"wav_bytes": [{"b64": base64.b64encode(_wav(9, 1)).decode()}] * 2},
        "magnitudes": {"mixture_magnitudes": rng.random((2, model.bins, model.frames)).tolist()},
        "metadata": {"request": ["", ""]},
    }
    for signature, columns in inputs.items():
        outputs = tf_serving.predict_rest(serving.rest, signature, columns)
        [(name, values)] = columns.items()
        for instances in (values, [{name: value} for value in values]):
            body = json.dumps({"signature_name": signature, "instances": instances}).encode()
            url = f"http://{serving.rest}/v1/models/sccunet:predict"
            with urllib.request.urlopen(url, body) as answer:
                rows = json.load(answer)["predictions"]
            if isinstance(outputs, dict):
                assert rows == [{key: outputs[key][i] for key in outputs} for i in range(2)]
            else:
                assert rows == outputs
    by_grpc = tf_serving.predict_grpc(
        serving.grpc,
        "magnitudes",
        {"mixture_magnitudes": np.ones((1, model.bins, model.frames), "f")},
    )
    assert {name: x.shape for name, x in by_grpc.items()} == dict.fromkeys(
        model.stems, (1, model.bins, model.frames)
    )


def test_warm_up_requests_run_and_cover_every_signature(serving, version):
    """TensorFlow Serving replays them before a version is ready."""
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record)
        for record in tf.data.TFRecordDataset(str(version / WARMUP)).as_numpy_iterator()
    ]
    assert len(logs) <= 1000  # its limit
    with grpc.insecure_channel(serving.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for log in logs:
            request = log.predict_log.request
            request.model_spec.name = "sccunet"  # the warm-up is for this model, whatever its name
            assert stub.Predict(request).outputs
    found = {log.predict_log.request.model_spec.signature_name for log in logs}
    assert found == json.loads((version / METADATA).read_text())["signatures"].keys()


# Errors of the functions.


def _closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def _refused(protocol, server, wav=b"", **options):
    with pytest.raises(ServingError) as caught:
        _SEPARATE[protocol](server, wav, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"server {server}: ")
    return message.removeprefix(f"server {server}: ")


@pytest.mark.parametrize(
    ("wav", "options", "status", "reason"),
    [
        (
            _wav(10, 1, 48_000),
            {},
            ("400 Bad Request", "INVALID_ARGUMENT"),
            "assertion failed: [separate_wav: found a WAV at] [48000] [Hz, expected] [44100]",
        ),
        (
            _wav(10, 1, subtype="PCM_24"),
            {},
            ("400 Bad Request", "INVALID_ARGUMENT"),
            "Can only read 16-bit WAV files, but received 24",
        ),
        (
            b"hello",
            {},
            ("400 Bad Request", "INVALID_ARGUMENT"),
            "Header mismatch: Expected RIFF but found hell",
        ),
        (
            b"",
            {"model_name": "a/b c"},
            ("404 Not Found", "NOT_FOUND"),
            "Servable not found for request: Latest(a/b c)",
        ),
        (
            b"",
            {"model_version": 8},
            ("404 Not Found", "NOT_FOUND"),
            "Servable not found for request: Specific(sccunet, 8)",
        ),
    ],
    ids=["rate", "bits", "text", "model", "version"],
)
def test_the_servers_own_reason_is_reported(serving, wav, options, status, reason):
    for protocol, said in zip(("rest", "grpc"), status, strict=True):
        assert _refused(protocol, getattr(serving, protocol), wav, **options) == f"{said}: {reason}"


def test_a_signature_or_input_that_is_not_there(serving):
    for protocol, predict in _PREDICT.items():
        server = getattr(serving, protocol)
        with pytest.raises(ServingError, match='"patches" not found'):
            predict(server, "patches", {"x": [1.0]})
        with pytest.raises(ServingError, match=r"size does not match|Missing named input: request"):
            predict(server, "metadata", {"request": [""], "x": [1.0]} if protocol == "grpc" else {})


def test_no_server():
    server = _closed_port()
    assert _refused("rest", server) == "cannot be reached: [Errno 111] Connection refused"
    assert re.match(r"UNAVAILABLE: .*(refused|connect)", _refused("grpc", server))


@both
def test_a_server_that_does_not_answer(protocol):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        hang_up = threading.Timer(60, silent.close)  # a client that still waits gets another error
        hang_up.start()
        assert _refused(protocol, server, timeout=0.2) == "no answer within 0.2 s"
        hang_up.cancel()


def test_the_port_of_the_other_protocol(serving):
    assert _refused("rest", serving.grpc) == (
        "found a gRPC port, expected the REST port (by default 8501), or --protocol=grpc"
    )
    assert _refused("grpc", serving.rest) == (
        "found no gRPC, expected the gRPC port (by default 8500), or --protocol=rest"
    )


@pytest.mark.parametrize(
    ("status", "page", "reason"),
    [
        (200, b"<html>\n", "found an answer that is not TensorFlow Serving's"),
        (200, b"[]", "found an answer that is not TensorFlow Serving's"),
        (502, b"\n<html>\nproxy", "502 Bad Gateway: <html>"),
        (503, b"", "503 Service Unavailable"),
        (
            504,
            b'{"error": "Timed out"}',
            "504 Gateway Timeout (see its flag --rest_api_timeout_in_ms): Timed out",
        ),
        (
            400,
            b'{"error": "{{function_node f}} {{node a}} no \xff\\n\\t [[{{node b}}]]"}',
            "400 Bad Request: no \N{REPLACEMENT CHARACTER}",
        ),
    ],
)
def test_answers_of_other_servers(status, page, reason):
    class Page(model_server.Rest):
        def do_POST(self):  # noqa: N802
            self.send_response(status)
            self.end_headers()
            self.wfile.write(page)

    with model_server.http_server(Page) as server:
        assert _refused("rest", server) == reason


def test_a_stem_must_not_be_a_path(tmp_path):
    (tmp_path / "song.wav").write_bytes(_wav(9, 1))
    with pytest.raises(ServingError, match=r"song\.wav: found the stem '\.\./x', expected a name"):
        client.separate_file(
            lambda wav: {"../x": wav}, tmp_path / "song.wav", tmp_path / "a", _RATE
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["song.wav"]


# What is sent.

_ODD = b"note\x03\0\0\0abc\0"  # a chunk of odd length, with the byte behind it that makes it even


def _extensible(wav):
    """A 16-bit WAV with the same samples, as WAVE_FORMAT_EXTENSIBLE, with chunks of odd length."""
    fmt = b"\xfe\xff" + wav[22:36] + b"\x16\0\x10\0\3\0\0\0" + wav[20:22]
    fmt += b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    chunks = _ODD + b"fmt " + len(fmt).to_bytes(4, "little") + fmt + _ODD + wav[36:] + _ODD
    return b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WAVE" + chunks


@pytest.mark.parametrize(
    "other",
    [
        lambda wav: wav,
        lambda wav: wav[:36] + _ODD + wav[36:],
        lambda wav: wav + _ODD,
        _extensible,
        lambda wav: wav[:4] + b"\xff" * 4 + wav[8:40] + b"\xff" * 4 + wav[44:],
        lambda wav: wav[:4] + b"\x24\xf0\xff\x7f" + wav[8:40] + b"\0\xf0\xff\x7f" + wav[44:],
    ],
    ids=["plain", "chunk before", "chunk behind", "extensible", "unknown length", "SoX's"],
)
def test_all_16_bit_wavs_are_sent_as_plain_ones_with_the_same_samples(tmp_path, other):
    wav = _wav(501, 3)
    (tmp_path / "song.wav").write_bytes(other(wav))
    assert client.wav_of(tmp_path / "song.wav", _RATE) == wav


def test_other_files_are_converted(tmp_path):
    samples = 1.5 * np.sin(np.arange(4800) / 50)[:, None] * [1, 0.5]
    soundfile.write(tmp_path / "song.wav", samples, 48_000, "FLOAT")
    found, rate = soundfile.read(io.BytesIO(client.wav_of(tmp_path / "song.wav", _RATE)))
    assert rate == _RATE
    assert found.shape == (4410, 2)
    expected = np.clip(1.5 * np.sin(np.arange(4410) / 50 * 48_000 / _RATE), -1, 1)
    np.testing.assert_allclose(found[100:-100, 0], expected[100:-100], atol=1e-3)
    assert found[:, 0].max() == 32767 / 32768  # clipped


# The program, as users run it.


@both_programs
def test_program(program, serving, unet, tmp_path, protocol):
    files = [tmp_path / "song.wav", tmp_path / "two words.x.flac"]
    files[0].write_bytes(_extensible(_wav(9001, 2)))
    soundfile.write(files[1], 0.1 * np.random.default_rng(0).standard_normal(999), 48_000)
    out = tmp_path / "not" / "there"
    line = ("client", f"--protocol={protocol}", f"--server={getattr(serving, protocol)}")
    done = program(*line, f"--output_dir={out}", *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"stems of 2 files: {out}\n"
    written = [path.relative_to(out).as_posix() for path in sorted(out.rglob("*.*"))]
    assert written == [
        *("song/rest.wav", "song/vocals.wav"),
        *("two words.x", "two words.x/rest.wav", "two words.x/vocals.wav"),
    ]
    for file in files:
        stems = {x: (out / file.stem / f"{x}.wav").read_bytes() for x in ("vocals", "rest")}
        _check(stems, client.wav_of(file, _RATE), unet)


def test_program_overwrites_when_asked_to(program, refusal, serving, tmp_path):
    out, file, wav = tmp_path / "out", tmp_path / "song.wav", _wav(500, 1)
    file.write_bytes(wav)
    (out / "song").mkdir(parents=True)
    (out / "song" / "notes.txt").write_text("mine")
    (out / "song" / "rest.wav").write_text("old")
    line = ("client", f"--server={serving.rest}", f"--output_dir={out}")
    message = (
        f"{out}/song: found an existing folder, expected --overwrite, --skip_existing or a new"
        " folder"
    )
    assert refusal(program(*line, file)) == message
    done = program(*line, "--overwrite", file)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (out / "song").iterdir()) == [
        *("notes.txt", "rest.wav", "vocals.wav")
    ]
    assert len((out / "song" / "rest.wav").read_bytes()) == len(wav)


def test_program_prints_metadata(program, refusal, serving, version):
    line = ("client", "--metadata", f"--server={serving.rest}")
    done = program(*line)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (version / METADATA).read_text()
    message = refusal(program(*line, "song.wav"))
    assert message == "song.wav: found a file, expected none with --metadata"
    message = refusal(program(*line, "--model_name=other"))
    assert message.endswith("404 Not Found: Servable not found for request: Latest(other)")


@both_programs
def test_program_reports_a_server_that_is_not_there_in_one_line(
    program, refusal, tmp_path, protocol
):
    path, dead = tmp_path / "song.wav", _closed_port()
    path.write_bytes(_wav(100, 1))
    line = ("client", f"--protocol={protocol}", f"--output_dir={tmp_path}/out", path)
    assert refusal(program(*line, f"--server={dead}")).startswith(f"server {dead}: ")
    assert [entry.name for entry in tmp_path.iterdir()] == ["song.wav"]


def test_program_separates_all_but_bad_files(program, serving, tmp_path):
    bad = {"cut": _wav(100, 1)[:-2], "text": b"words, no sound\n"}
    for name, content in {**bad, "good": _wav(10, 1)}.items():
        (tmp_path / f"{name}.wav").write_bytes(content)
    out = tmp_path / "out"
    files = [tmp_path / f"{name}.wav" for name in ("cut", "missing", "text", "good")]
    done = program("client", f"--server={serving.rest}", f"--output_dir={out}", *files)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3, done.stderr
    for error, file in zip(errors, files, strict=False):
        assert error.startswith(f"error: {file}: found ")
    assert done.stdout == f"stems of 1 of 4 files: {out}\n"
    assert [path.name for path in out.iterdir()] == ["good"]


def test_program_refuses_invalid_flags(program, refusal, tmp_path):
    first, second = tmp_path / "song.wav", tmp_path / "x" / "song.wav"
    second.parent.mkdir()
    for path in (first, second):
        path.write_bytes(_wav(10, 1))
    out = f"--output_dir={tmp_path}/out"
    server = "--server=127.0.0.1:1"
    for line, message in (
        ((out, "--server=http://x:1"), "--server: found 'http://x:1', expected host:port"),
        ((out, server), "FILE: found none, expected recordings, folders of them, or -"),
        ((server, first), "--output_dir: not given, expected a folder for the stems"),
        (
            (out, server, first, second),
            f"{second}: its stems would be written to {tmp_path}/out/song, as those of {first};"
            " expected names that differ before the extension, or --recursive for files in"
            " different folders",
        ),
    ):
        assert refusal(program("client", *line)) == message
