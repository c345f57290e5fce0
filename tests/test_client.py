"""The client of TensorFlow Serving, against substitute servers.

TensorFlow Serving is a separate program that pip does not install. The servers here listen on real
ports and follow the rules in its source code: models run with the session loader, by the tensor
names of the SignatureDef; inputs must be those of the SignatureDef; answers have their values in
`float_val` and `string_val`; REST accepts `{"b64": ...}` and rows or columns, returns bytes if an
output's name ends in `_bytes`, and leaves out the name of a single output.
"""

import base64
import concurrent.futures
import contextlib
import http.server
import io
import json
import re
import socket
import threading
import types
import urllib.request

import grpc
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from data_pipeline.wav import wav_info
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
_HTTP_STATUS = {3: 400, 5: 404, 9: 400}  # INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION
_SEPARATE = {"rest": tf_serving.separate_rest, "grpc": tf_serving.separate_grpc}
_METADATA = {"rest": tf_serving.metadata_rest, "grpc": tf_serving.metadata_grpc}
_PREDICT = {"rest": tf_serving.predict_rest, "grpc": tf_serving.predict_grpc}
both = pytest.mark.parametrize("protocol", ["rest", "grpc"])
# With gRPC, the program imports TensorFlow.
both_programs = pytest.mark.parametrize(
    "protocol", ["rest", pytest.param("grpc", marks=pytest.mark.slow)]
)


class _Predictor:
    """TensorFlow Serving's Predict.

    Attributes:
      requests: the requests that were received.
    """

    def __init__(self, **versions):
        """Loads model name -> folder of its version."""
        self.requests, self._models = [], {}
        for name, version in versions.items():
            session = tf.compat.v1.Session(graph=tf.Graph())
            with session.graph.as_default():
                meta = tf.compat.v1.saved_model.load(session, ["serve"], str(version))
            self._models[name] = session, dict(meta.signature_def), int(version.name)

    def model(self, spec):
        """Session and name -> SignatureDef."""
        if spec.name in self._models:
            session, signatures, version = self._models[spec.name]
            if not spec.HasField("version") or spec.version.value == version:
                return session, signatures
        sought = f"Latest({spec.name})"
        if spec.HasField("version"):
            sought = f"Specific({spec.name}, {spec.version.value})"
        raise tf.errors.NotFoundError(None, None, f"Servable not found for request: {sought}")

    def predict(self, request):
        self.requests.append(request)
        session, signatures = self.model(request.model_spec)
        name = request.model_spec.signature_name or "serving_default"
        if name not in signatures:
            raise tf.errors.FailedPreconditionError(
                None, None, f'Serving signature key "{name}" not found.'
            )
        signature = signatures[name]
        if set(request.inputs) != set(signature.inputs):
            found, expected = (",".join(sorted(x)) for x in (request.inputs, signature.inputs))
            raise _invalid(
                f"input size does not match signature: {len(request.inputs)}!="
                f"{len(signature.inputs)} len({{{found}}}) != len({{{expected}}})."
            )
        for key, info in signature.inputs.items():
            tensor = request.inputs[key]
            shape = tf.TensorShape(tensor.tensor_shape)
            if tensor.dtype != info.dtype or not shape.is_compatible_with(info.tensor_shape):
                raise _invalid(f"{key}: found {tensor.dtype} {shape}")
        try:
            outputs = session.run(
                {key: info.name for key, info in signature.outputs.items()},
                {
                    signature.inputs[key].name: tf.make_ndarray(x)
                    for key, x in request.inputs.items()
                },
            )
        except tf.errors.OpError as error:
            # The first line is Python's; TensorFlow Serving has none.
            message = error.message.removeprefix("Graph execution error:\n\n")
            raise type(error)(None, None, message) from error
        response = predict_pb2.PredictResponse()
        for key, array in outputs.items():
            info, tensor = signature.outputs[key], response.outputs[key]
            assert tf.as_dtype(info.dtype) == array.dtype
            assert tf.TensorShape(info.tensor_shape).is_compatible_with(array.shape)
            tensor.dtype = info.dtype
            tensor.tensor_shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
            strings = info.dtype == tf.string
            (tensor.string_val if strings else tensor.float_val).extend(array.ravel().tolist())
        return response


def _invalid(message):
    return tf.errors.InvalidArgumentError(None, None, message)


class _Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, predictor):
        self._predictor = predictor

    def Predict(self, request, context):  # noqa: N802
        try:
            return self._predictor.predict(request)
        except tf.errors.OpError as error:
            codes = {code.value[0]: code for code in grpc.StatusCode}
            context.abort(codes[error.error_code], error.message[:1024])


class _Rest(http.server.BaseHTTPRequestHandler):
    predictor: _Predictor

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            status, answer = 200, self._predict(body)
        except tf.errors.OpError as error:
            status, answer = _HTTP_STATUS[error.error_code], {"error": error.message}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _predict(self, body):
        path = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict", self.path)
        if not path:
            raise _invalid(f"Malformed request: POST {self.path}")
        request, content = predict_pb2.PredictRequest(), json.loads(body)
        request.model_spec.name = urllib.request.unquote(path[1])
        if path[2]:
            request.model_spec.version.value = int(path[2])
        name = content.get("signature_name", "serving_default")
        request.model_spec.signature_name = name
        _, signatures = self.predictor.model(request.model_spec)
        if name not in signatures:
            raise _invalid(f'Serving signature name: "{name}" not found in signature def')
        infos = signatures[name].inputs
        if not infos:
            raise _invalid(f"Failed to get input map for signature: {name}")
        rows = "instances" in content
        if rows == ("inputs" in content):
            raise _invalid("Missing 'inputs' or 'instances' key")
        values = content["instances" if rows else "inputs"]
        if rows and _is_object(values[0]):
            if any(set(row) != set(infos) for row in values):
                raise _invalid(f"Failed to process element: must only have keys: {[*infos]}")
            values = {key: [row[key] for row in values] for key in infos}
        elif not _is_object(values):
            [key] = infos
            values = {key: values}
        for key, info in infos.items():
            if key not in values:
                raise _invalid(f"Missing named input: {key} in 'inputs' object.")
            request.inputs[key].CopyFrom(tf.make_tensor_proto(_tensor(values[key]), info.dtype))
        outputs = self.predictor.predict(request).outputs
        columns = {key: _plain(key, tf.make_ndarray(x).tolist()) for key, x in outputs.items()}
        if len(columns) == 1:
            [single] = columns.values()
            return {"predictions" if rows else "outputs": single}
        if not rows:
            return {"outputs": columns}
        batches = zip(*columns.values(), strict=True)
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in batches]}

    def log_message(self, *_):
        pass


def _is_object(value):
    return isinstance(value, dict) and set(value) != {"b64"}


def _tensor(value):
    """Converts a value from JSON for a tensor."""
    if isinstance(value, list):
        return [_tensor(entry) for entry in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"], validate=True)
    return value


def _plain(name, value):
    """Converts a tensor's value for JSON."""
    if isinstance(value, list):
        return [_plain(name, entry) for entry in value]
    if not isinstance(value, bytes):
        return value
    if name.endswith("_bytes"):
        return {"b64": base64.b64encode(value).decode()}
    return value.decode()


@contextlib.contextmanager
def _http_server(handler):
    """Yields host:port of a running server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def _serving(**versions):
    """Both servers: `rest` and `grpc` are their host:port, `requests` what they received."""
    predictor = _Predictor(**versions)
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    pool = concurrent.futures.ThreadPoolExecutor(2)
    server = grpc.server(pool, options=unlimited)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Grpc(predictor), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with _http_server(type("Rest", (_Rest,), {"predictor": predictor})) as rest:
            yield types.SimpleNamespace(
                rest=rest, grpc=f"127.0.0.1:{port}", requests=predictor.requests
            )
    finally:
        server.stop(None).wait()


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
    with _serving(sccunet=version) as servers:
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
    with _serving(**{"one stem": version}) as servers:
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
        hang_up = threading.Timer(5, silent.close)  # a client that still waits gets another error
        hang_up.start()
        assert _refused(protocol, server, timeout=0.2) == "no answer within 0.2 s"
        hang_up.cancel()


def test_the_port_of_the_other_protocol(serving):
    assert _refused("rest", serving.grpc) == "found an answer that is not TensorFlow Serving's"
    assert _refused("grpc", serving.rest).startswith("UNAVAILABLE: ")


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
    class Page(_Rest):
        def do_POST(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(page)

    with _http_server(Page) as server:
        assert _refused("rest", server) == reason


def test_a_stem_must_not_be_a_path(tmp_path):
    (tmp_path / "song.wav").write_bytes(_wav(9, 1))
    with pytest.raises(ServingError, match=r"song\.wav: found the stem '\.\./x', expected a name"):
        client.separate_file(lambda wav: {"../x": wav}, tmp_path / "song.wav", tmp_path / "a")
    assert [entry.name for entry in tmp_path.iterdir()] == ["song.wav"]


# The program, as users run it.


@both_programs
def test_program(program, serving, unet, tmp_path, protocol):
    wavs = {"song": _wav(9001, 2), "two words.x": _wav(500, 1)}
    files = [tmp_path / f"{name}.wav" for name in wavs]
    for file, wav in zip(files, wavs.values(), strict=True):
        file.write_bytes(wav)
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
    for name, wav in wavs.items():
        folder = out / name
        _check({x: (folder / f"{x}.wav").read_bytes() for x in ("vocals", "rest")}, wav, unet)
        assert wav_info(folder / "rest.wav").sample_rate == _RATE


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
def test_program_reports_file_server_and_reason_in_one_line(
    program, refusal, serving, tmp_path, protocol
):
    path, server = tmp_path / "song.wav", getattr(serving, protocol)
    path.write_bytes(_wav(100, 1, 48_000))
    line = ("client", f"--protocol={protocol}", f"--output_dir={tmp_path}/out", path)
    status = {"rest": "400 Bad Request", "grpc": "INVALID_ARGUMENT"}[protocol]
    done = program(*line, f"--server={server}")
    assert refusal(done) == (
        f"{path}: server {server}: {status}: assertion failed:"
        " [separate_wav: found a WAV at] [48000] [Hz, expected] [44100]"
    )
    dead = _closed_port()
    done = program(*line, f"--server={dead}")
    assert refusal(done).startswith(f"{path}: server {dead}: ")
    assert [entry.name for entry in tmp_path.iterdir()] == ["song.wav"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "found no such file, expected a WAV file"),
        (b"words, no sound\n", "found no WAV header, expected a WAV file"),
        (_wav(100, 1)[:-2], "found 99 samples (truncated), expected the 100 samples that its"),
        (_wav(9, 1, subtype="PCM_24"), "found pcm24, expected a WAV file of 16-bit PCM"),
    ],
    ids=["missing", "text", "truncated", "24 bits"],
)
def test_program_sends_nothing_if_a_file_is_bad(
    program, refusal, serving, tmp_path, content, reason
):
    (tmp_path / "good.wav").write_bytes(_wav(10, 1))
    path = tmp_path / "song.wav"
    if content is not None:
        path.write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    serving.requests.clear()
    line = ("client", f"--server={serving.rest}", f"--output_dir={tmp_path}/out")
    message = refusal(program(*line, tmp_path / "good.wav", path))
    assert message.startswith(f"{path}: {reason}")
    assert not serving.requests
    assert sorted(tmp_path.rglob("*")) == before


def test_program_refuses_invalid_flags(program, refusal, tmp_path):
    first, second = tmp_path / "song.wav", tmp_path / "x" / "song.wav"
    second.parent.mkdir()
    for path in (first, second):
        path.write_bytes(_wav(10, 1))
    out = f"--output_dir={tmp_path}/out"
    server = "--server=127.0.0.1:1"
    for line, message in (
        ((out, "--server=http://x:1"), "--server: found 'http://x:1', expected host:port"),
        ((out, server), "FILE: found none, expected one or more WAV files"),
        ((server, first), "--output_dir: not given, expected a folder for the stems"),
        (
            (out, server, first, second),
            f"{second}: its stems would be written to {tmp_path}/out/song, as those of {first};"
            " expected names that differ before the extension, or --recursive for files in"
            " different folders",
        ),
    ):
        assert refusal(program("client", *line)) == message
