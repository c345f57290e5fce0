"""Requests to TensorFlow Serving, by REST and by gRPC.

The functions can be copied into other programs: those named `..._rest` need only Python's standard
library, those named `..._grpc` the packages tensorflow-serving-api and grpcio.
"""

import base64
import contextlib
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from sccunet.config import ConfigError

_WAV = "_wav_bytes"  # suffix of the outputs of signature `separate_wav`


class ServingError(ConfigError):
    """A failed request: one line with the server's address and the reason that it gave."""


def predict_rest(
    server: str,
    signature: str,
    inputs: Mapping[str, Any],
    model_name: str = "sccunet",
    model_version: int | None = None,
    timeout: float = 600,
) -> Any:
    """Runs a signature over TensorFlow Serving's REST interface.

    Args:
      server: "host:port" of the REST interface.
      signature: its name.
      inputs: name -> nested lists of numbers, strings, or `{"b64": ...}` for bytes.
      model_name: name of the model on the server.
      model_version: None selects the newest version that is loaded.
      timeout: seconds that the server may be silent.

    Returns:
      Output name -> nested lists like the inputs; just the lists if there is a single output.

    Raises:
      ServingError: if the server cannot be reached, refuses the request or is too slow.
    """
    # Columns ("inputs") rather than rows ("instances"): one list per output, of any length.
    body = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
    version = "" if model_version is None else f"/versions/{model_version}"
    model = urllib.parse.quote(model_name, safe="")
    request = urllib.request.Request(
        f"http://{server}/v1/models/{model}{version}:predict",
        body,
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)["outputs"]
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a proxy's page, say
            text = json.loads(text)["error"]
        # TensorFlow Serving ends REST requests after 30 s, however long the client would wait.
        hint = " (see its flag --rest_api_timeout_in_ms)" if error.code == 504 else ""
        raise _error(server, f"{error.code} {error.reason}{hint}", text) from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise _error(server, f"no answer within {timeout:g} s") from error
        raise _error(server, "cannot be reached", str(reason)) from error
    except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        # A gRPC server sends HTTP/2's settings first: their length in 3 bytes, then their type, 4.
        if isinstance(error, http.client.BadStatusLine) and error.line[3:4] == "\4":
            expected = "expected the REST port (by default 8501), or --protocol=grpc"
            raise _error(server, f"found a gRPC port, {expected}") from error
        raise _error(server, "found an answer that is not TensorFlow Serving's") from error


def separate_rest(server: str, wav: bytes, **options: Any) -> dict[str, bytes]:
    """Separates a WAV file over REST.

    Args:
      server: "host:port" of the REST interface.
      wav: a 16-bit PCM WAV file at the model's sample rate.
      **options: further arguments of `predict_rest`.

    Returns:
      Stem name -> a WAV file of the same length and channels as `wav`.

    Raises:
      ServingError: as `predict_rest`.
    """
    inputs = {"wav_bytes": [{"b64": base64.b64encode(wav).decode()}]}
    outputs = predict_rest(server, "separate_wav", inputs, **options)
    if isinstance(outputs, list):  # TensorFlow Serving leaves out the name of a single output
        [stem] = json.loads(metadata_rest(server, **options))["stems"]
        outputs = {stem + _WAV: outputs}
    return {
        name.removesuffix(_WAV): base64.b64decode(file["b64"]) for name, [file] in outputs.items()
    }


def metadata_rest(server: str, **options: Any) -> str:
    """Returns the model's metadata, JSON text, over REST; arguments, errors: `separate_rest`."""
    [text] = predict_rest(server, "metadata", {"request": [""]}, **options)
    return text


def predict_grpc(
    server: str,
    signature: str,
    inputs: Mapping[str, Any],
    model_name: str = "sccunet",
    model_version: int | None = None,
    timeout: float = 600,
) -> dict[str, Any]:
    """Runs a signature over TensorFlow Serving's gRPC interface.

    Args:
      server: "host:port" of the gRPC interface.
      signature: its name.
      inputs: name -> array, or a list of bytes.
      model_name: name of the model on the server.
      model_version: None selects the newest version that is loaded.
      timeout: seconds until the answer must have arrived.

    Returns:
      Output name -> array; bytes are in an array of objects.

    Raises:
      ServingError: if the server cannot be reached, refuses the request or is too slow.
    """
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    if model_version is not None:
        request.model_spec.version.value = model_version
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    # By default gRPC refuses answers over 4 MiB: 24 s of one stereo stem.
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server, unlimited) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            outputs = stub.Predict(request, timeout=timeout).outputs
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise _error(server, f"no answer within {timeout:g} s") from error
            details = error.details() or ""
            if re.search("parsing HTTP/2|http1", details):
                expected = "expected the gRPC port (by default 8500), or --protocol=rest"
                raise _error(server, f"found no gRPC, {expected}") from error
            raise _error(server, error.code().name, details) from error
    return {name: tf.make_ndarray(tensor) for name, tensor in outputs.items()}


def separate_grpc(server: str, wav: bytes, **options: Any) -> dict[str, bytes]:
    """Separates a WAV file over gRPC, as `separate_rest` does over REST."""
    outputs = predict_grpc(server, "separate_wav", {"wav_bytes": [wav]}, **options)
    return {name.removesuffix(_WAV): file for name, [file] in outputs.items()}


def metadata_grpc(server: str, **options: Any) -> str:
    """Returns the model's metadata, JSON text, over gRPC; arguments, errors: `separate_grpc`."""
    [text] = predict_grpc(server, "metadata", {"request": [""]}, **options)["metadata"]
    return text.decode()


def _error(server: str, problem: str, reason: str = "") -> ServingError:
    # TensorFlow writes {{nodes}} before its reason and [[more nodes]] on the following lines.
    lines = [line.strip() for line in re.sub(r"\{\{.*?\}\}", "", reason).splitlines()]
    first = next(filter(None, lines), "")
    return ServingError(f"server {server}: {problem}" + (f": {first}" if first else ""))
