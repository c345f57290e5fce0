"""Section "train": seconds per training step."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

from data_pipeline import loader
from experiments.benchmarks.clock import (
    REPEATS,
    Result,
    seconds_of,
    steps_at_a_time,
    torch_device,
)
from experiments.benchmarks.input import training_segments
from sccunet.config import Config


def ours(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Measures our trainer under `fit`, on the current Keras backend.

    Each repetition has at least `settings["steps"]` steps, if that is given.
    """
    import keras

    from sccunet import build_model
    from sccunet.training import compile_trainer

    backend = keras.backend.backend()
    config = Config.from_dict(settings["config"])
    config = dataclasses.replace(
        config,
        batch_size=settings["batch_size"],
        precision=settings.get("precision", "float32"),
        # Without it, Keras runs a JAX step operation by operation.
        jit_compile=config.jit_compile or backend == "jax",
    )
    stems = len(config.model.stems)
    scope = _replicas(settings["replicas"]) if "replicas" in settings else contextlib.nullcontext()
    with scope:
        unet = build_model(config, dtype=config.precision)
        trainer = compile_trainer(unet, config, [1 / stems] * stems, 100)
    data = _our_batches(settings, config, backend)
    seconds = []

    class Timer(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            float(logs["loss"])  # waits for the device
            seconds.append(time.perf_counter() - self.began)

    steps = max(settings.get("steps", 1), steps_at_a_time())
    warm_up = _warm_up_steps(config)
    ready()
    trainer.fit(
        data, steps_per_epoch=steps, epochs=warm_up + REPEATS, verbose=0, callbacks=[Timer()]
    )
    return {"seconds": seconds[warm_up:], "work": steps, "first_call_seconds": seconds[0]}


def _our_batches(settings: Mapping[str, Any], config: Config, backend: str):
    """Returns the data for `fit`: crops of files, or the same waveforms in every step."""
    if settings.get("pipeline"):
        segments = training_segments(settings, config)
        if not loader.has_tensorflow():
            return ((batch,) for batch in loader.training_batches(segments, config))
        import tensorflow as tf

        from data_pipeline.dataset import training_dataset

        if backend != "tensorflow":
            tf.config.set_visible_devices([], "GPU")  # the backend needs all of their memory
        return training_dataset(segments, config)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.data.Dataset.from_tensors(_waveforms(config)).repeat()
    return (batch for batch in itertools.repeat((_waveforms(config),)))


def _replicas(count: int):
    """Returns the scope of a strategy whose replicas are parts of this machine's CPU."""
    import tensorflow as tf

    from sccunet.distribution import make_strategy

    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(cpu, parts)
    return make_strategy("mirrored")[0].scope()


def twin(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Measures the same step, written as usual in PyTorch."""
    import torch

    from experiments.twin import SpectrogramChannelsUNet

    config = Config.from_dict(settings["config"])
    config = dataclasses.replace(config, batch_size=settings["batch_size"])
    device_name, layout = torch_device(), torch.channels_last
    unet = SpectrogramChannelsUNet(config).to(device_name, memory_format=layout)
    forward = torch.compile(unet) if settings.get("compile") else unet
    on_gpu = device_name == "cuda"
    optimizer = torch.optim.AdamW(
        unet.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=on_gpu
    )
    batch = torch.from_numpy(_waveforms(config))
    batch = batch.pin_memory() if on_gpu else batch
    window = torch.hann_window(config.model.frame_length, device=device_name)

    def step():
        # In each step, as ours come from the host.
        waveforms = batch.to(device_name, non_blocking=True)
        spectrum = torch.stft(
            waveforms.flatten(0, 2),
            config.model.frame_length,
            config.model.hop_length,
            window=window,
            return_complex=True,
        ).unflatten(0, waveforms.shape[:3])  # [batch, stems, channels, bins, frames]
        whole = spectrum.sum(1)
        mixture = whole.abs().contiguous(memory_format=layout)
        with torch.autocast(device_name, torch.bfloat16, enabled=settings.get("bfloat16", False)):
            estimates = forward(mixture)
        estimates = estimates.float().unflatten(1, spectrum.shape[1:3])
        if config.loss == "complex":
            phase = whole / mixture.clamp(min=1e-12)
            errors = (spectrum - estimates * phase[:, None]).abs().square().mean((1, 2, 3, 4))
            loss = (errors / mixture.square().mean((1, 2, 3))).mean()  # equal alpha for all stems
        else:
            loss = (spectrum.abs() - estimates).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    steps = steps_at_a_time()

    def repetition() -> None:
        losses = [step() for _ in range(steps)]
        losses[-1].item()  # waits for the device

    ready()
    first = [seconds_of(repetition) for _ in range(_warm_up_steps(config))]
    seconds = [seconds_of(repetition) for _ in range(REPEATS)]
    return {"seconds": seconds, "work": steps, "first_call_seconds": first[0]}


def _waveforms(config: Config):
    """Returns random waveforms, float32 [batch, stems, channels, patch_samples]."""
    import numpy as np

    model = config.model
    shape = (config.batch_size, len(model.stems), model.channels, model.patch_samples)
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def _warm_up_steps(config: Config) -> int:
    return 1 if config.batch_size >= 8 else 2
