"""The network of a portable model, run without TensorFlow or by TensorFlow's LiteRT interpreter.

OpenVINO reads the TFLite file as it is. The file takes one patch at a time; several in one call,
for which it would have to be rewritten, saved no time on a CPU.
"""

import collections
import functools
import os
import struct
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from sccunet.checks import ConfigError
from sccunet.config import ModelConfig
from sccunet.files import plain_path
from sccunet.runs import NETWORK

RUNTIMES = ("auto", "openvino", "tensorflow")
_HINTS = {
    "INFERENCE_PRECISION_HINT": "f32",  # some processors would take bfloat16, and GPUs float16
    # Two cores that compute a patch each are faster than both on one. Each of the patches takes
    # memory, with the paper's network 160 MB: four at most.
    "PERFORMANCE_HINT": "THROUGHPUT",
    "PERFORMANCE_HINT_NUM_REQUESTS": 4,
}


def threads_of_environment() -> int | None:
    """Returns OMP_NUM_THREADS, which limits the threads of OpenVINO, too; None if it is not set."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    return int(chosen) if chosen.isdecimal() and int(chosen) else None


class OpenVinoNetwork:
    """The network of a portable model, by OpenVINO, in float32; several threads may call it.

    Args:
      folder: the portable model.
      model: the model's configuration.
      device: "CPU", "GPU", or a name that OpenVINO has for one of several, such as "GPU.1".

    Attributes:
      parallel: number of calls at the same time with which all take the least time.

    Raises:
      ConfigError: if OpenVINO or the device is missing, or the file is damaged or does not fit.
    """

    def __init__(self, folder: str | os.PathLike, model: ModelConfig, device: str = "CPU"):
        openvino, path = import_openvino(), Path(folder, NETWORK)
        core, device = openvino.Core(), device.upper()  # TensorFlow's names are in lower case
        _check_device(core, device)
        _check_file(path)
        try:
            with plain_path(folder) as plain:
                network = core.read_model(os.path.join(plain, NETWORK))
            network = _on_spectrograms(openvino, network, path, model)
            threads = threads_of_environment() if device == "CPU" else None
            limits = {"INFERENCE_NUM_THREADS": threads} if threads else {}
            self._compiled = core.compile_model(network, device, _HINTS | limits)
        except RuntimeError as error:
            raise _unfit(path, _reason(error)) from error
        self.parallel = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._tensor = openvino.Tensor
        self._idle = collections.deque()  # requests that no thread uses; their methods are atomic

    def __call__(self, magnitudes: np.ndarray, training: bool = False) -> np.ndarray:
        """Estimates: [batch, bins, frames, channels] -> [batch, bins, frames, stems * channels]."""
        # Not a copy of what `sccunet.spectral` gives, which is a view of this.
        spectrograms = np.ascontiguousarray(magnitudes.transpose(0, 3, 2, 1), np.float32)
        estimates = np.empty((len(spectrograms), *self._compiled.output(0).shape[1:]), np.float32)
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        for i in range(len(spectrograms)):
            request.set_input_tensor(self._tensor(spectrograms[i : i + 1], shared_memory=True))
            request.set_output_tensor(self._tensor(estimates[i : i + 1], shared_memory=True))
            request.infer()
        self._idle.append(request)
        return estimates.transpose(0, 3, 2, 1)


class TensorFlowNetwork:
    """The network of a portable model, by the LiteRT interpreter in TensorFlow.

    Args:
      folder: the portable model.
      model: the model's configuration.

    Attributes:
      parallel: as in `OpenVinoNetwork`.

    Raises:
      ConfigError: if the file is damaged or does not fit.
    """

    parallel = 1

    def __init__(self, folder: str | os.PathLike, model: ModelConfig):
        import tensorflow as tf
        from tensorflow.lite.tools import flatbuffer_utils

        path = Path(folder, NETWORK)
        _check_file(path)
        content = path.read_bytes()
        try:
            # The interpreter crashes on half of a file.
            flatbuffer_utils.convert_bytearray_to_object(content)
            interpreter = tf.lite.Interpreter(model_content=content, num_threads=os.cpu_count())
            self._run = interpreter.get_signature_runner("magnitudes")
        except (ValueError, RuntimeError, struct.error) as error:
            raise _unfit(path, _reason(error)) from error
        outputs = self._run.get_output_details()
        tensors = [*self._run.get_input_details().values(), *outputs.values()]
        shapes = [tensor["shape"] for tensor in tensors]
        _check_fits(path, model, shapes, sorted(outputs) == sorted(model.stems))
        self._model, self._lock = model, threading.Lock()

    def __call__(self, magnitudes: np.ndarray, training: bool = False) -> np.ndarray:
        """Estimates: [batch, bins, frames, channels] -> [batch, bins, frames, stems * channels]."""
        patches = np.ascontiguousarray(magnitudes, np.float32)
        return np.concatenate([self._estimate(patch[None]) for patch in patches])

    def _estimate(self, magnitudes: np.ndarray) -> np.ndarray:
        with self._lock:  # the interpreter has one set of tensors
            shape = (1, *self._model.magnitudes_shape)
            found = self._run(mixture_magnitudes=magnitudes.reshape(shape))
        shape = (*magnitudes.shape[:3], -1)
        return np.concatenate([found[stem].reshape(shape) for stem in self._model.stems], axis=-1)


def import_openvino() -> ModuleType:
    """Imports OpenVINO, without its converter of models.

    The converter takes two thirds of the time, and tells its makers over the Internet.

    Raises:
      ConfigError: if OpenVINO is not installed.
    """
    converter = "openvino.tools.ovc"
    if "openvino" not in sys.modules:
        sys.modules[converter] = None  # OpenVINO goes on without it
    try:
        import openvino
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"OpenVINO: cannot be imported ({reason}), expected it for a portable model:"
            " pip install openvino"
        ) from error
    finally:
        if sys.modules.get(converter, ...) is None:
            del sys.modules[converter]
    return openvino


def _check_device(core, device: str) -> None:
    there = core.available_devices  # such as CPU, GPU or, of several, GPU.0, GPU.1
    if device not in there and not any(name.startswith(f"{device}.") for name in there):
        raise ConfigError(
            f"device: found {device!r}, expected one that OpenVINO finds here: {', '.join(there)}"
        )


def _check_file(path: Path) -> None:
    """Refuses what is no TFLite file, since OpenVINO would try its readers of other files."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if start[4:] != b"TFL3":
        raise _unfit(path, "no TFLite file")


def _check_fits(path: Path, model: ModelConfig, shapes: Iterable[Sequence[int]], fits: bool):
    """Compares the shapes of the network's input and outputs, and `fits`, with the config."""
    expected = (1, *model.magnitudes_shape)
    if others := {tuple(map(int, shape)) for shape in shapes} - {expected}:
        raise _unfit(path, f"magnitudes {list(others.pop())} in place of {list(expected)}")
    if not fits:
        raise _unfit(path, "other stems")


def _unfit(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"{path}: found {found}, expected the network that sccunet export wrote for the config"
        " beside it"
    )


def _reason(error: Exception) -> str:
    """The last line of an error, which says most in those of both libraries."""
    return f"a network that does not load ({str(error).strip().splitlines()[-1]})"


def _on_spectrograms(openvino: ModuleType, network, path: Path, model: ModelConfig):
    """Gives a network the layout of spectrograms, so that the host copies and transposes nothing.

    Args:
      openvino: the package.
      network: what OpenVINO read: as `sccunet.tflite` writes it, with an output for each stem.
      path: of its file, for errors.
      model: the model's configuration.

    Returns:
      Network [1, channels, frames, bins] -> [1, stems * channels, frames, bins].

    Raises:
      ConfigError: if the network has other inputs or outputs.
    """
    ops, stems = openvino.opset13, sorted(model.stems)
    # TensorFlow's converter numbers the outputs in the order of the stems' names.
    outputs = {
        name.rpartition(":")[2]: output for output in network.outputs for name in output.names
    }
    shapes = [tensor.shape for tensor in (*network.inputs, *network.outputs)]
    numbers = [str(number) for number in range(len(stems))]
    _check_fits(path, model, shapes, sorted(outputs) == sorted(numbers))
    transposed = [0, 3, 2, 1]
    mixture = ops.parameter([1, model.channels, model.frames, model.bins], np.float32)
    magnitudes = ops.reshape(
        ops.transpose(mixture, transposed), [1, *model.magnitudes_shape], special_zero=False
    )
    for user in network.input().get_target_inputs():
        user.replace_source_output(magnitudes.output(0))
    if model.output == "mask" and (logits := _logits(network, model)):
        return openvino.Model([_masked(ops, logits, mixture, model)], [mixture], "network")
    estimates = [
        ops.transpose(
            ops.reshape(
                outputs[str(stems.index(stem))].node.input_value(0),
                [1, model.bins, model.frames, model.channels],
                special_zero=False,
            ),
            transposed,
        )
        for stem in model.stems
    ]
    return openvino.Model([ops.concat(estimates, axis=1)], [mixture], "network")


def _logits(network, model: ModelConfig):
    """Finds the logits of the masks: [1, stems * channels, bins, frames], or a little larger."""
    for node in network.get_ops():
        if node.get_type_name() == "Softmax":
            while node.get_type_name() in ("Softmax", "Transpose", "Reshape", "StridedSlice"):
                node = node.input_value(0).node
            shape = tuple(node.output(0).shape)
            if len(shape) == 4 and shape[:2] == (1, len(model.stems) * model.channels):
                return node.output(0)
    return None


def _masked(ops: ModuleType, logits, mixture, model: ModelConfig):
    """Computes the end of a network with masks, as `sccunet.unet` does.

    OpenVINO's softmax over so few numbers, and the transpositions around it, took 28 % of the small
    network's time; maxima and sums of whole spectrograms take hardly any.

    Args:
      ops: OpenVINO's operators.
      logits: from `_logits`.
      mixture: magnitudes [1, channels, frames, bins].
      model: the model's configuration.

    Returns:
      [1, stems * channels, frames, bins].
    """
    size = [1, len(model.stems) * model.channels, model.bins, model.frames]
    cropped = ops.slice(logits, [0] * 4, size, [1] * 4)
    stems = ops.split(ops.transpose(cropped, [0, 1, 3, 2]), 1, len(model.stems)).outputs()
    largest = functools.reduce(ops.maximum, stems)
    powers = [ops.exp(ops.subtract(stem, largest)) for stem in stems]
    scale = ops.divide(mixture, functools.reduce(ops.add, powers))
    return ops.concat([ops.multiply(power, scale) for power in powers], axis=1)
