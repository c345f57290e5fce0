"""Substitute for TensorFlow Serving, for the client's tests.

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
import json
import re
import threading
import types
import urllib.request

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

_HTTP_STATUS = {3: 400, 5: 404, 9: 400}  # INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION


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


class Rest(http.server.BaseHTTPRequestHandler):
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
def http_server(handler):
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
def serving(**versions):
    """Both servers: `rest` and `grpc` are their host:port, `requests` what they received."""
    predictor = _Predictor(**versions)
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    pool = concurrent.futures.ThreadPoolExecutor(2)
    server = grpc.server(pool, options=unlimited)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Grpc(predictor), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with http_server(type("Rest", (Rest,), {"predictor": predictor})) as rest:
            yield types.SimpleNamespace(
                rest=rest, grpc=f"127.0.0.1:{port}", requests=predictor.requests
            )
    finally:
        server.stop(None).wait()
