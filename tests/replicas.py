"""Prints ten losses of a small network on noise, trained by several replicas or workers.

  PYTHONPATH=. python tests/replicas.py DATA WORKDIR one            # one device
  PYTHONPATH=. python tests/replicas.py DATA WORKDIR mirrored 2     # two logical CPUs
  TF_CONFIG=... PYTHONPATH=. python tests/replicas.py DATA WORKDIR multiworker
  ... multiworker 1 7    # this worker is asked to stop (Ctrl-C) after step 7

`test_distribution.py` runs it. The last line printed is JSON: the loss after each step, loss and
SDR of each epoch's validation and, of several devices, what `finite_of_replicas` returns.
"""

import json
import math
import os
import signal
import sys

import tensorflow as tf

STEPS, EPOCHS = 5, 2


def config():
    """A config without dropout and with common statistics; otherwise replicas differ by design.

    The gradients of each step are clipped, and averaged weights are validated.
    """
    from sccunet.config import Config, ModelConfig

    return Config(
        model=ModelConfig(
            stems=("vocals", "drums"), filters=(4, 8), patch_samples=16_384, dropout=0.0
        ),
        loss_weights=(0.5, 0.5),
        batch_size=8,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        learning_rate=2e-3,
        clip_norm=0.02,
        ema_momentum=0.5,
        synchronized_norm=True,
        check_steps=1,
    )


def finite_of_replicas(strategy: tf.distribute.Strategy) -> list[bool]:
    """Returns what each replica says of its gradients, where those of the first are infinite."""
    from sccunet.optimizer import make_optimizer

    with strategy.scope():
        optimizer, variable = make_optimizer(config(), STEPS), tf.Variable(0.0)
        optimizer.build([variable])

    @tf.function
    def step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([tf.where(tf.equal(replica, 0), math.inf, 1.0)], [variable])
        return optimizer.finite

    found = strategy.experimental_local_results(strategy.run(step))
    return [bool(value) for value in found]


def main(data_dir: str, workdir: str, kind: str, devices: int = 1, stop: int = 0) -> None:
    """Trains as the program train does, and prints the losses."""
    if devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, parts)
    # For ten steps, optimising the graphs takes longer than it saves.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    from experiments.training import fit as training_fit
    from experiments.training.options import TrainOptions
    from experiments.training.run import train
    from sccunet import finite

    losses, validated, sdr, of_replicas = [], [], [], []

    class Noted(finite.FiniteGuard):
        """Records the losses of the run: means since the start of the epoch."""

        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            losses.append(float(logs["loss"]))
            if len(losses) == stop:
                os.kill(os.getpid(), signal.SIGINT)

        def on_epoch_end(self, epoch, logs=None):
            validated.append(float(logs["val_loss"]))
            sdr.append(float(logs["val_sdr"]))

        def on_train_end(self, logs=None):
            if devices > 1:
                of_replicas.extend(finite_of_replicas(self.model.distribute_strategy))

    training_fit.FiniteGuard = Noted
    strategy = "cpu" if kind == "one" else kind
    try:
        train(config(), TrainOptions(data_dir, workdir, strategy=strategy))
    finally:
        found = {"losses": losses, "validated": validated, "sdr": sdr, "finite": of_replicas}
        print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
