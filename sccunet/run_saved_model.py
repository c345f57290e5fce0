"""Runs signatures of a SavedModel in a separate process, with only TensorFlow.

  python -m sccunet.run_saved_model EXPORT REQUESTS RESULTS

REQUESTS is a pickled list of (signature, {input: array}). RESULTS receives a pickled dict: loader
("tf2", or "session" as in TensorFlow Serving) -> list of {output: array}.
"""

import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

Request = tuple[str, dict[str, np.ndarray]]


def run_tf2(export: str, requests: Sequence[Request]) -> list[dict[str, np.ndarray]]:
    """Runs requests through `tf.saved_model.load`."""
    module = tf.saved_model.load(export)
    results = []
    for name, inputs in requests:
        outputs = module.signatures[name](**{key: tf.constant(x) for key, x in inputs.items()})
        results.append({key: x.numpy() for key, x in outputs.items()})
    return results


def run_session(export: str, requests: Sequence[Request]) -> list[dict[str, np.ndarray]]:
    """Runs requests through the session loader, by tensor names from the signature definitions."""
    results = []
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        definitions = tf.compat.v1.saved_model.load(session, ["serve"], export).signature_def
        for name, inputs in requests:
            signature = definitions[name]
            results.append(
                session.run(
                    {key: info.name for key, info in signature.outputs.items()},
                    {signature.inputs[key].name: x for key, x in inputs.items()},
                )
            )
    return results


if __name__ == "__main__":
    export, requests, results = sys.argv[1:]
    given = pickle.loads(Path(requests).read_bytes())
    found = {"tf2": run_tf2(export, given), "session": run_session(export, given)}
    Path(results).write_bytes(pickle.dumps(found))
