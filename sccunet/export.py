"""Exports a SavedModel that needs only TensorFlow: waveforms in, named stems out.

`sccunet.signatures` lists its signatures.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import sccunet
from sccunet.config import Config, ConfigError
from sccunet.export_check import check_export, checked_fold
from sccunet.files import folder_written_whole, plain_path
from sccunet.provenance import NOT_STATED, git_commit
from sccunet.runs import METADATA, new_version
from sccunet.signatures import Signature, signatures

WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"


def export_saved_model(
    unet: keras.Model,
    config: Config,
    base_dir: str | os.PathLike,
    version: int | None = None,
    training_data: Any = NOT_STATED,
    licence: str = NOT_STATED,
) -> Path:
    """Writes `<base_dir>/<version>/`, after a check in a fresh process.

    The network is exported folded (`sccunet.folding`); the folded network must compute the same as
    `unet`. The fresh process loads the export with both of TensorFlow's loaders, and each signature
    must return the same as the folded network in memory. The export contains warm-up requests for
    TensorFlow Serving.

    Args:
      unet: from `build_model`, with its weights.
      config: config of the run that trained it.
      base_dir: the model's base path in TensorFlow Serving; created if missing.
      version: 1 or more, must not exist yet; by default the newest plus 1.
      training_data: description of the training data, a text or any JSON value.
      licence: licence of the weights, as text.

    Returns:
      The version's folder.

    Raises:
      UserError: if the version exists, or if the export does not run or computes something else;
        nothing is left of it then.
    """
    base_dir = Path(base_dir)
    export = base_dir / str(new_version(base_dir, version))
    module, folded = tf.Module(), checked_fold(unet, config.model)
    module.weights = [weight.value for weight in folded.weights]
    with tempfile.TemporaryDirectory() as folder:
        description = Path(folder) / METADATA.name
        module.metadata = tf.saved_model.Asset(str(description))
        table = signatures(folded, config, module.metadata)
        description.write_text(metadata(table, config, int(export.name), training_data, licence))
        with folder_written_whole(export, new=True) as partial:
            try:
                functions = {name: signature.concrete() for name, signature in table.items()}
                (partial / WARMUP.parent).mkdir()
                with plain_path(partial) as plain:
                    tf.saved_model.save(module, plain, signatures=functions)
                    _write_warmup(Path(plain) / WARMUP, table)
            except tf.errors.OpError as error:
                reason = str(error).splitlines()[0]
                raise ConfigError(f"{export}: cannot be written ({reason})") from error
            check_export(
                partial,
                [(name, {entry.input: entry.example}) for name, entry in table.items()],
                [entry.expected(entry.example) for entry in table.values()],
            )
    return export


def metadata(
    table: Mapping[str, Signature], config: Config, version: int, training_data: Any, licence: str
) -> str:
    """Returns the description inside an export, as JSON."""
    content = {
        "name": "Spectrogram-Channels U-Net (Oh, Kim, Yun 2018)",
        "model_version": version,
        "sample_rate": config.model.sample_rate,
        "stems": list(config.model.stems),
        "training_data": training_data,
        "licence": licence,
        "sccunet_version": sccunet.__version__,
        "git_commit": git_commit(),
        "signatures": {name: signature.document() for name, signature in table.items()},
        "config": config.to_dict(),
    }
    return json.dumps(content, indent=2) + "\n"


def _write_warmup(path: Path, table: Mapping[str, Signature]) -> None:
    """Writes a request for each signature; TensorFlow Serving runs them before any others."""
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, signature in table.items():
            row = signature.example[:1]
            # A single value for the whole tensor keeps the file small.
            quiet = row if row.dtype == object else 0.01
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(signature_name=name),
                inputs={signature.input: tf.make_tensor_proto(quiet, shape=row.shape)},
            )
            log = prediction_log_pb2.PredictLog(request=request)
            entry = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(entry.SerializeToString())
