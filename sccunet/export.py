"""A SavedModel that anyone can run or serve: waveforms in, named stems out, no Python of ours.

Signatures, as TensorFlow Serving and `saved_model_cli show` have them (the first axis of each is
the batch, and each takes an input, which TensorFlow Serving's REST interface insists on):

serving_default  `waveform` float32 [batch, samples, channels] at the model's rate, full scale 1
                 -> one tensor of that shape per stem, named after it
separate_wav     `wav_bytes` string [batch]: 16-bit PCM WAV files at the model's rate
                 -> `<stem>_wav_bytes` string [batch]: the same, each as long as its input
magnitudes       `mixture_magnitudes` float32 [batch, bins, frames], linear
                 -> one tensor of that shape per stem, named after it
metadata         `request` string [batch], ignored -> `metadata` string [batch]: JSON
"""

import contextlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import sccunet
from sccunet import spectral
from sccunet.config import Config, ConfigError
from sccunet.folding import fold
from sccunet.patching import Patching
from sccunet.runs import CONFIG, METADATA
from sccunet.separation import Separator

WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
# Of the largest value: what another loader, and what folding, may change.
_TOLERANCE = 1e-5
_FOLDING = 1e-4


def separate_graph(waveform: tf.Tensor, unet: keras.Model, config: Config) -> dict[str, tf.Tensor]:
    """`Separator` as TensorFlow ops: the same patches, in a loop that holds one at a time.

    Rows of the batch and channels are separated one after the other as well: memory for the network
    does not depend on the request.

    Args:
      waveform: float32 [batch, samples, channels], at the model's sample rate.
      unet: from `build_model`.
      config: of the run that trained it.

    Returns:
      Stem name -> float32 [batch, samples, channels].
    """
    model = config.model
    patching = Patching.of(model)
    stems, step, fade = len(model.stems), patching.step, patching.fade
    window = tf.constant(patching.window)
    shape = tf.shape(waveform)
    batch, samples, channels = shape[0], shape[1], shape[2]
    rows = batch * channels
    mixture = tf.reshape(tf.transpose(waveform, (0, 2, 1)), [rows, samples])
    count = patching.count(samples)
    behind = count * step + model.patch_samples - step - patching.lead - samples
    mixture = tf.pad(mixture, [[0, 0], [patching.lead, tf.maximum(behind, 0)]])

    def separate_patch(patch):
        estimate = spectral.separate_patches(patch[None], unet, model)[0]  # [stems, patch_samples]
        return estimate[:, patching.margin : patching.margin + patching.keep] * window

    def body(i, tail, done):
        patch = mixture[:, i * step : i * step + model.patch_samples]
        patch = tf.ensure_shape(patch, [None, model.patch_samples])
        estimate = tf.map_fn(  # [rows, patch_samples] -> [rows, stems, keep]
            separate_patch,
            patch,
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec([stems, patching.keep], tf.float32),
        )
        ready = tf.concat([estimate[..., :fade] + tail, estimate[..., fade:step]], axis=-1)
        # The first patch fades in before the recording starts, the last may end behind its end.
        given = i * step - fade
        ready = ready[..., tf.maximum(0, -given) : tf.minimum(step, samples - given)]
        # [rows, stems, n] -> [n, stems, rows]: pieces that join along their first axis.
        ready = tf.transpose(ready, (2, 1, 0))
        done = [pieces.write(i, ready[:, k]) for k, pieces in enumerate(done)]
        return i + 1, estimate[..., step:], done

    # A list of pieces per stem, so that joining one needs memory for one.
    pieces = [
        tf.TensorArray(tf.float32, count, element_shape=[None, None], infer_shape=False)
        for _ in model.stems
    ]
    _, _, pieces = tf.while_loop(
        lambda i, *_: i < count,
        body,
        (tf.constant(0), tf.zeros([rows, stems, fade]), pieces),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([None, stems, fade]),
            [tf.TensorShape(None)] * stems,
        ),
        parallel_iterations=1,
    )
    separated = {}
    for stem, parts in zip(model.stems, pieces, strict=True):
        joined = tf.reshape(parts.concat(), [samples, batch, channels])
        separated[stem] = tf.transpose(joined, (1, 0, 2))
    return separated


def separate_wav_graph(
    wav_bytes: tf.Tensor, unet: keras.Model, config: Config
) -> dict[str, tf.Tensor]:
    """WAV files to WAV files, one after the other, each with its own length and channels.

    Args:
      wav_bytes: string [batch], 16-bit PCM WAV at the model's sample rate.
      unet: from `build_model`.
      config: of the run that trained it.

    Returns:
      `<stem>_wav_bytes` -> string [batch]; samples beyond full scale are clipped.
    """
    rate, stems = config.model.sample_rate, config.model.stems

    def separate(wav):
        waveform, found = tf.audio.decode_wav(wav)  # [samples, channels]
        right = tf.debugging.Assert(
            tf.equal(found, rate), ["separate_wav: found a WAV at", found, "Hz, expected", rate]
        )
        with tf.control_dependencies([right]):
            separated = separate_graph(tf.identity(waveform)[None], unet, config)
        return [tf.audio.encode_wav(separated[stem][0], rate) for stem in stems]

    files = tf.map_fn(
        separate, wav_bytes, fn_output_signature=[tf.string] * len(stems), parallel_iterations=1
    )
    return {f"{stem}_wav_bytes": file for stem, file in zip(stems, files, strict=True)}


def export_saved_model(
    unet: keras.Model,
    config: Config,
    base_dir: str | os.PathLike,
    version: int | None = None,
    training_data: Any = "not stated",
    licence: str = "not stated",
) -> Path:
    """Writes `<base_dir>/<version>/`, after checking it in a fresh process.

    The network is written folded (`sccunet.folding`), which has to compute what `unet` does. What
    was written is loaded by both of TensorFlow's loaders there, and each signature has to give what
    the folded network in memory gives. Requests for TensorFlow Serving to warm up with lie beside.

    Args:
      unet: from `build_model`, with its weights.
      config: of the run that trained it.
      base_dir: what TensorFlow Serving calls the model's base path; made where it is missing.
      version: 1 or more, must not exist yet; by default one more than the newest there.
      training_data: what the weights were trained on, text or what JSON holds.
      licence: of the weights, in words.

    Returns:
      The version's folder.

    Raises:
      ConfigError: if the version exists, or what was written runs differently or not at all; then
        nothing is left of it.
    """
    base_dir = Path(base_dir)
    export = base_dir / str(new_version(base_dir, version))
    text = metadata(config, int(export.name), training_data, licence)
    try:
        base_dir.mkdir(parents=True, exist_ok=True)
        # On the same disk, so that renaming moves nothing.
        with tempfile.TemporaryDirectory(".part", ".", base_dir) as folder:
            partial, description = Path(folder) / export.name, Path(folder) / METADATA.name
            description.write_text(text)
            module, folded = tf.Module(), _folded(unet, config)
            module.weights = [weight.value for weight in folded.weights]
            module.metadata = tf.saved_model.Asset(str(description))
            functions = _signatures(folded, config, module.metadata)
            tf.saved_model.save(module, str(partial), signatures=functions)
            (partial / WARMUP.parent).mkdir()
            _write_warmup(partial / WARMUP, functions, config)
            _check(partial, folded, config, text)
            os.rename(partial, export)  # fails if somebody else made this version meanwhile
    except (OSError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{export}: cannot be written ({reason})") from error
    return export


def new_version(base_dir: str | os.PathLike, version: int | None = None) -> int:
    """The number of the next export: `version`, or one more than the highest there.

    Raises:
      ConfigError: if it is there, or if `base_dir` is no folder for versions.
    """
    base_dir = Path(base_dir)
    if base_dir.exists() and not base_dir.is_dir():
        raise ConfigError(f"{base_dir}: found a file, expected a folder for versions")
    for name in (CONFIG, "saved_model.pb"):
        if (base_dir / name).exists():
            raise ConfigError(f"{base_dir}: found {name} in it, expected a folder for versions")
    there = {
        int(entry.name)
        for entry in (base_dir.iterdir() if base_dir.exists() else ())
        if entry.name.isdecimal()
    }
    if version is None:
        return max(there, default=0) + 1
    if version in there:
        raise ConfigError(f"{base_dir / str(version)}: found already there, expected a new version")
    return version


def metadata(config: Config, version: int, training_data: Any, licence: str) -> str:
    """What an export says of itself, as JSON."""
    model = config.model
    tensor = {"dtype": "float32"}
    waveform = {
        **tensor,
        "shape": ["batch", "samples", "channels"],
        "unit": f"full scale is 1, {model.sample_rate} Hz, any length, channels on their own",
    }
    magnitudes = {
        **tensor,
        "shape": ["batch", model.bins, model.frames],
        "unit": f"linear magnitudes of a centred STFT, Hann {model.frame_length}, hop"
        f" {model.hop_length}",
    }
    wav = {"dtype": "string", "shape": ["batch"], "unit": "16-bit PCM WAV file at that rate"}
    string = {"dtype": "string", "shape": ["batch"]}
    stems = model.stems
    content = {
        "name": "Spectrogram-Channels U-Net (Oh, Kim, Yun 2018)",
        "model_version": version,
        "sample_rate": model.sample_rate,
        "stems": list(stems),
        "training_data": training_data,
        "licence": licence,
        "sccunet_version": sccunet.__version__,
        "git_commit": _git_commit(),
        "signatures": {
            "serving_default": {
                "inputs": {"waveform": waveform},
                "outputs": dict.fromkeys(stems, waveform),
            },
            "separate_wav": {
                "inputs": {"wav_bytes": wav},
                "outputs": {f"{stem}_wav_bytes": wav for stem in stems},
            },
            "magnitudes": {
                "inputs": {"mixture_magnitudes": magnitudes},
                "outputs": dict.fromkeys(stems, magnitudes),
            },
            "metadata": {
                "inputs": {"request": {**string, "unit": "ignored"}},
                "outputs": {"metadata": {**string, "unit": "this text"}},
            },
        },
        "config": config.to_dict(),
    }
    return json.dumps(content, indent=2) + "\n"


def _git_commit() -> str:
    """Of the code's checkout, `-dirty` if it was changed since; "unknown" outside of one."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not some repository around it
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _signatures(unet: keras.Model, config: Config, metadata_file: tf.saved_model.Asset) -> dict:
    """Name -> concrete function, as the module's docstring has them."""
    model = config.model

    def estimate(mixture_magnitudes):
        estimates = unet(mixture_magnitudes[..., None], training=False)
        return {stem: estimates[..., i] for i, stem in enumerate(model.stems)}

    def describe(request):
        text = tf.io.read_file(metadata_file.asset_path)
        return {"metadata": tf.fill(tf.shape(request), text)}

    string = tf.TensorSpec([None], tf.string)
    functions = {
        "serving_default": (
            lambda waveform: separate_graph(waveform, unet, config),
            {"waveform": tf.TensorSpec([None, None, None], tf.float32)},
        ),
        "separate_wav": (
            lambda wav_bytes: separate_wav_graph(wav_bytes, unet, config),
            {"wav_bytes": string},
        ),
        "magnitudes": (
            estimate,
            {"mixture_magnitudes": tf.TensorSpec([None, model.bins, model.frames], tf.float32)},
        ),
        "metadata": (describe, {"request": string}),
    }
    return {
        name: tf.function(function).get_concrete_function(**inputs)
        for name, (function, inputs) in functions.items()
    }


def _write_warmup(path: Path, signatures: dict, config: Config) -> None:
    """A request for each signature; TensorFlow Serving replays them before it takes others."""
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    model = config.model
    # One number that stands for all of the tensor's keeps the file small.
    quiet = 0.01
    tensors = {
        "serving_default": tf.make_tensor_proto(quiet, shape=[1, model.patch_samples, 2]),
        "separate_wav": tf.make_tensor_proto([_wav(np.full((1000, 2), quiet), model.sample_rate)]),
        "magnitudes": tf.make_tensor_proto(quiet, shape=[1, model.bins, model.frames]),
        "metadata": tf.make_tensor_proto([""]),
    }
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, function in signatures.items():
            ((spec,), _) = function.structured_input_signature
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(signature_name=signature),
                inputs={spec.name: tensors[signature]},
            )
            log = prediction_log_pb2.PredictLog(request=request)
            entry = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(entry.SerializeToString())


def _wav(waveform: np.ndarray, rate: int) -> bytes:
    return tf.audio.encode_wav(tf.constant(waveform, tf.float32), rate).numpy()


def _check(export: Path, folded: keras.Model, config: Config, text: str) -> None:
    """Runs each signature in a fresh process, by both loaders, and compares with memory."""
    model = config.model
    rate = model.sample_rate
    rng = np.random.default_rng(0)
    # A little longer than a patch: two are joined.
    noise = (0.1 * rng.standard_normal((model.patch_samples + 1, 2))).astype(np.float32)
    magnitudes = np.abs(rng.standard_normal((2, model.bins, model.frames))).astype(np.float32)
    separator = Separator.from_model(folded, config)
    pcm = [
        tf.audio.decode_wav(_wav(part, rate)).audio.numpy()
        for part in (noise[:-999], noise[:1000, :1])
    ]
    estimates = keras.ops.convert_to_numpy(folded(magnitudes[..., None], training=False))
    files = [separator(part, rate) for part in pcm]
    requests = [
        ("serving_default", {"waveform": noise[None]}),
        ("separate_wav", {"wav_bytes": np.array([_wav(part, rate) for part in pcm], object)}),
        ("magnitudes", {"mixture_magnitudes": magnitudes}),
        ("metadata", {"request": np.array(["", ""], object)}),
    ]
    expected = [
        {stem: x[None] for stem, x in separator(noise, rate).items()},
        {f"{stem}_wav_bytes": [file[stem] for file in files] for stem in model.stems},
        {stem: estimates[..., i] for i, stem in enumerate(model.stems)},
        {"metadata": [text, text]},
    ]
    for loader, results in _in_fresh_process(export, requests).items():
        for (signature, _), found, truth in zip(requests, results, expected, strict=True):
            if reason := _difference(found, truth):
                raise ConfigError(
                    f"{export}: signature '{signature}' by the {loader} loader: {reason}"
                )


def _in_fresh_process(export: Path, requests: list) -> dict[str, list[dict[str, np.ndarray]]]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("requests", "results")]
        paths[0].write_bytes(pickle.dumps(requests))
        done = subprocess.run(
            [sys.executable, "-m", "sccunet.run_saved_model", export.resolve(), *paths],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            # The one that calls has the GPU's memory, and its arithmetic may be another.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        )
        if done.returncode:
            # From the exception's name on, in one line.
            reason = " ".join(done.stderr.strip().rpartition("\n  ")[2].split("\n")[1:])
            raise ConfigError(
                f"{export}: does not run in a fresh process"
                f" ({reason or f'it ended with {done.returncode}'})"
            )
        return pickle.loads(paths[1].read_bytes())


def _folded(unet: keras.Model, config: Config) -> keras.Model:
    """The network without batch normalisation, if it computes the same."""
    folded, shape = fold(unet), (1, config.model.bins, config.model.frames, 1)
    noise = np.abs(np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    found, expected = ({"magnitudes": net(noise, training=False).numpy()} for net in (folded, unet))
    if reason := _difference(found, expected, _FOLDING):
        raise ConfigError(f"batch normalisation does not fold: {reason}")
    return folded


def _difference(
    found: Mapping[str, Any], expected: Mapping[str, Any], most: float = _TOLERANCE
) -> str | None:
    """Why a signature's result is not the one expected, or None if it is."""
    if sorted(found) != sorted(expected):
        return f"found the outputs {sorted(found)}, expected {sorted(expected)}"
    for name, truth in expected.items():
        for got, want in zip(found[name], truth, strict=True):
            if isinstance(want, str):
                if got.decode() != want:
                    return f"'{name}' is another text, expected the one written"
                continue
            tolerance = most * max(1.0, float(np.abs(want).max(initial=0)))
            if isinstance(got, bytes):
                got, want = tf.audio.decode_wav(got).audio.numpy(), np.clip(want, -1, 1)
                tolerance += 1 / 32768  # a half for the rounding, the other at full scale
            error = float(np.abs(got - want).max()) if got.shape == want.shape else np.inf
            if not error <= tolerance:
                return (
                    f"'{name}' differs from the model in memory by {error:.1e},"
                    f" expected at most {tolerance:.0e}"
                )
    return None


def export_tflite(unet: keras.Model, config: Config, path: str | os.PathLike) -> None:
    """Writes the network as a TFLite (LiteRT) file: magnitudes of one patch in, each stem's out.

    Builtin operators only, float32. Its signature is `magnitudes` with batch 1; the STFT is left to
    the caller.

    Args:
      unet: from `build_model`, with its weights.
      config: of the run that trained it.
      path: the file, replaced where it exists; written whole or not at all.

    Raises:
      ConfigError: if what was converted computes something else, or cannot be written.
    """
    path, model, folded = Path(path), config.model, _folded(unet, config)
    shape = [1, model.bins, model.frames]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="mixture_magnitudes")])
    def magnitudes(mixture_magnitudes):
        estimates = folded(mixture_magnitudes[..., None], training=False)
        return {stem: estimates[..., i] for i, stem in enumerate(model.stems)}

    with tempfile.TemporaryDirectory() as folder:
        module = tf.Module()
        module.weights = [weight.value for weight in folded.weights]
        module.magnitudes = magnitudes
        tf.saved_model.save(module, folder, signatures={"magnitudes": magnitudes})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, ["magnitudes"])
        content = converter.convert()
    noise = np.abs(np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    run = tf.lite.Interpreter(model_content=content).get_signature_runner("magnitudes")
    expected = {stem: x.numpy() for stem, x in magnitudes(tf.constant(noise)).items()}
    if reason := _difference(run(mixture_magnitudes=noise), expected):
        raise ConfigError(f"{path}: {reason}")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
