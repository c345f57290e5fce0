r"""Trains Open-Unmix on a data directory for a given time: what our networks are compared with.

Examples:
  python -m experiments.train_open_unmix --config=experiments/configs/small_2stems.py \
      --data_dir=DATA --workdir=UMX --minutes=30
  python -m experiments.evaluate --config=experiments/configs/small_2stems.py \
      --data_dir=DATA --output_dir=SCORES --system=openunmix --weights=UMX

It needs the openunmix package: make comparison. Its network, with its optimiser, loss and input
statistics, gets our training stream: tracks, validation tracks, augmentation and sample rate are
the config's, crops are --seconds long and in stereo. One thing differs from its own training: the
learning rate falls as a cosine to 0 over each stem's time. There it waits for 80 epochs without
progress before it falls, which so short a training never sees.

--minutes is the wall-clock time from the end of the data's checks to the end of the last stem's
training: input statistics first, then an equal share of what is left for each stem, in which its
steps and its validations fall. Imports and checks before it and the writing of UMX after it are
not counted. It runs on the CPU; on cores that other programs use as well, OMP_NUM_THREADS=1 is many
times faster than PyTorch's own choice, whose threads wait for each other.

Written into UMX, as openunmix itself reads it:
  separator.json            of the STFT
  <stem>.pth, <stem>.json   weights of the best validation; settings, steps, seconds and losses
"""

import copy
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments import cli
from sccunet.config import Config, ConfigError
from sccunet.files import folder_written_whole

# openunmix's own
_STFT = {"n_fft": 4096, "n_hop": 1024}
_BANDWIDTH = 16_000  # Hz; the network's input ends there
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 1e-5

_STATISTICS_CROPS = 100  # 10 minutes of 6 s
_VALIDATION_CROPS = 16
_VALIDATIONS = 10  # of each stem


def train_open_unmix(
    config: Config,
    data_dir: str,
    workdir: str,
    minutes: float,
    hidden_size: int = 512,
    batch_size: int = 16,
    seconds: float = 6.0,
    names: Sequence[str] = (),
) -> None:
    """Trains one Open-Unmix network for each of the config's stems, on the CPU.

    Args:
      config: stems and sample rate, validation split, augmentation and seed; the rest is not used.
      data_dir: tracks in the MUSDB18-HQ layout, each at least one crop long.
      workdir: a new folder; it appears when all stems are trained.
      minutes: of the whole training, as the module says.
      hidden_size: of each network, an even number; published networks have 512.
      batch_size: crops per step.
      seconds: length of a crop.
      names: train on these tracks alone.

    Raises:
      AudioError: for data that cannot be trained on, before training starts.
      ConfigError: if openunmix is missing, a setting cannot work, or `workdir` exists.
    """
    from experiments.baselines.torch_system import import_package

    _check(config, workdir, hidden_size)
    torch = import_package("torch")
    import_package("openunmix.utils")

    from data_pipeline import dataset, splits, tracks

    crop = round(seconds * config.model.sample_rate)
    model = dataclasses.replace(config.model, patch_samples=crop)
    config = dataclasses.replace(config, model=model, batch_size=batch_size)
    training, validation, how = splits.training_split(data_dir, config, names)
    print(how)
    tracks.check_finite([segment.track for segment in training + validation])
    started = time.monotonic()
    torch.manual_seed(config.seed)
    crops = dataset.fixed_crops(training, config, _STATISTICS_CROPS)
    crops = dataset.fixed_dataset(training, config, crops, 1, stereo=True)
    statistics = _statistics(_batches(crops))
    spent = time.monotonic() - started
    share = max(0.0, 60 * minutes - spent) / len(config.model.stems)
    crops = dataset.fixed_crops(validation, config, _VALIDATION_CROPS)
    crops = dataset.fixed_dataset(validation, config, crops, batch_size, stereo=True)
    trained = {}
    for i, stem in enumerate(config.model.stems):
        # Each stem sees the same crops.
        stream = dataset.training_dataset(training, config, stereo=True)
        trained[stem] = _fit(i, config, stream, crops, statistics, hidden_size, share)
    settings = {
        "nfft": _STFT["n_fft"],
        "nhop": _STFT["n_hop"],
        "sample_rate": float(config.model.sample_rate),
        "nb_channels": 2,
    }
    of_stem = settings | {
        "hidden_size": hidden_size,
        "bandwidth": _BANDWIDTH,
        "lr": _LEARNING_RATE,
        "weight_decay": _WEIGHT_DECAY,
        "batch_size": batch_size,
        "seq_dur": seconds,
        "seed": config.seed,
        "minutes": minutes,
        "data_dir": str(Path(data_dir).resolve()),
        "split": how,
        "threads": torch.get_num_threads(),
        "config": config.to_dict(),
    }
    with folder_written_whole(workdir) as folder:
        (folder / "separator.json").write_text(_to_json(settings))
        for stem, (state, record) in trained.items():
            torch.save(state, folder / f"{stem}.pth")
            record = {"args": of_stem, "statistics_seconds": spent, **record}
            (folder / f"{stem}.json").write_text(_to_json(record))
    print(f"Open-Unmix of {', '.join(trained)}: {workdir}")


def _check(config: Config, workdir: str, hidden_size: int) -> None:
    stems = config.model.stems
    if len(stems) < 2:
        raise ConfigError(
            f"config.model.stems: found {stems}, expected at least two to train on: the mixture is"
            " their sum"
        )
    for stem, other in itertools.permutations(stems, 2):
        if other.startswith(stem):
            # openunmix takes <stem>*.pth for the stem's weights.
            raise ConfigError(
                f"config.model.stems: found {stem!r} and {other!r}, expected none that another one"
                " starts with: openunmix mistakes their files"
            )
    if hidden_size % 2:
        raise ConfigError(
            f"hidden_size: found {hidden_size}, expected an even number: half for each direction"
        )
    if Path(workdir).exists():
        raise ConfigError(f"{workdir}: found already there, expected a new workdir")


def _to_json(values: Any) -> str:
    return json.dumps(values, indent=1) + "\n"


def _batches(data):
    """torch.float32 [batch, stems, 2, samples] of one of our datasets."""
    import tensorflow as tf
    import torch

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1  # the cores are the network's
    for batch in data.with_options(options):
        yield torch.from_numpy(batch.numpy().copy())


def _encoder():
    """openunmix's function of [batch, 2, samples]: magnitudes [batch, 2, bins, frames]."""
    import torch
    from openunmix import transforms

    stft, _ = transforms.make_filterbanks(**_STFT)
    return torch.nn.Sequential(stft, transforms.ComplexNorm())


def _statistics(batches):
    """Mean and standard deviation of the mixtures' magnitudes in each bin, as openunmix's training.

    Of the mean over both channels. float64 [bins] each.
    """
    import numpy as np
    import torch

    encoder = _encoder()
    count, total, squares = 0, 0.0, 0.0
    with torch.inference_mode():
        for stems in batches:
            x = encoder(stems.sum(dim=1)).mean(dim=1).double()  # [batch, bins, frames]
            count += x.shape[0] * x.shape[2]
            total += x.sum(dim=(0, 2)).numpy()
            squares += x.square().sum(dim=(0, 2)).numpy()
    mean = total / count
    scale = np.sqrt(np.maximum(squares / count - mean**2, 0))
    scale[scale == 0] = 1  # as scikit-learn's scaler: a bin that never changes
    return mean, np.maximum(scale, 1e-4 * scale.max())


def _fit(i, config, training, validation, statistics, hidden_size, share):
    """Trains the network of stem number `i` for `share` seconds.

    Args:
      i: of the stem.
      config: its stems and sample rate.
      training: endless dataset of stems' waveforms.
      validation: the same few batches each time.
      statistics: of the network's input.
      hidden_size: of the network.
      share: where it is too short, there is one step nevertheless.

    Returns:
      The weights of the best validation, and a record of the training.
    """
    import torch
    from openunmix import model, utils
    from torch.nn import functional
    from tqdm import tqdm

    started = time.monotonic()
    encoder = _encoder()
    rate, n_fft = config.model.sample_rate, _STFT["n_fft"]
    unmix = model.OpenUnmix(
        nb_bins=n_fft // 2 + 1,
        nb_channels=2,
        hidden_size=hidden_size,
        input_mean=statistics[0],
        input_scale=statistics[1],
        max_bin=int(utils.bandwidth_to_max_bin(rate, n_fft, _BANDWIDTH)),
    )
    optimizer = torch.optim.Adam(unmix.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    checks = list(_batches(validation))

    def loss_of(stems):
        with torch.no_grad():
            x, y = encoder(stems.sum(dim=1)), encoder(stems[:, i].contiguous())
        return functional.mse_loss(unmix(x), y)

    def validate():
        unmix.eval()
        with torch.inference_mode():
            losses = [loss_of(stems).item() * len(stems) for stems in checks]
        unmix.train()
        return sum(losses) / sum(len(stems) for stems in checks)

    record = {
        "steps": 0,
        "seconds": 0.0,
        "best_loss": math.inf,
        "best_step": 0,
        "train_loss_history": [],
        "valid_loss_history": [],
        "valid_step_history": [],
    }
    best, losses = None, []
    validation_seconds = 0.0
    bar = tqdm(
        total=max(1, round(share)),
        desc=config.model.stems[i],
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f} of {total} s{postfix}",
    )
    unmix.train()
    for stems in _batches(training):
        before = time.monotonic()
        progress = min(1.0, (before - started) / share) if share > 0 else 1.0
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * (1 + math.cos(math.pi * progress)) / 2
        optimizer.zero_grad()
        loss = loss_of(stems)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        record["steps"] += 1
        now = time.monotonic()
        # Ends where another such step would not leave the time for the last validation.
        done = now - started + (now - before) + validation_seconds > share
        if done or (now - started) / share > (len(record["valid_loss_history"]) + 1) / _VALIDATIONS:
            valid_loss = validate()
            validation_seconds = time.monotonic() - now
            record["train_loss_history"].append(sum(losses) / len(losses))
            record["valid_loss_history"].append(valid_loss)
            record["valid_step_history"].append(record["steps"])
            losses = []
            if not math.isfinite(valid_loss):
                raise ConfigError(
                    f"config.model.stems: the loss of {config.model.stems[i]} became {valid_loss};"
                    " another --seed or a larger --batch_size may help"
                )
            if valid_loss < record["best_loss"]:
                record["best_loss"], record["best_step"] = valid_loss, record["steps"]
                best = copy.deepcopy(unmix.state_dict())
            bar.set_postfix(steps=record["steps"], valid_loss=f"{valid_loss:.4g}")
        bar.update(min(time.monotonic() - started, bar.total) - bar.n)
        if done:
            break
    bar.close()
    record["seconds"] = time.monotonic() - started
    return best, record


def main(_: Sequence[str]) -> None:
    """Checks the flags and trains."""
    if _CONFIG.value is None:
        raise ConfigError(
            "--config: missing, expected a file such as experiments/configs/small_4stems.py"
        )
    config = Config.from_dict(_CONFIG.value)
    if _SEED.value is not None:
        config = dataclasses.replace(config, seed=_SEED.value)
    train_open_unmix(
        config,
        _DATA_DIR.value,
        _WORKDIR.value,
        _MINUTES.value,
        _HIDDEN_SIZE.value,
        _BATCH_SIZE.value,
        _SECONDS.value,
        _TRACKS.value,
    )


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file(
        "config", None, "Stems, augmentation and seed: a file of configs/."
    )
    _DATA_DIR = flags.DEFINE_string(
        "data_dir", None, "Tracks in the MUSDB18-HQ layout: train/<track>/<stem>.wav", required=True
    )
    _WORKDIR = flags.DEFINE_string(
        "workdir", None, "A new folder: the trained networks.", required=True
    )
    _MINUTES = flags.DEFINE_float(
        "minutes", None, "Wall-clock time, shared by all stems.", required=True, lower_bound=0
    )
    _HIDDEN_SIZE = flags.DEFINE_integer(
        "hidden_size", 512, "Of the networks; 512 as published.", lower_bound=2
    )
    _BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Crops per step.", lower_bound=1)
    _SECONDS = flags.DEFINE_float("seconds", 6.0, "Length of a crop.", lower_bound=0)
    _TRACKS = flags.DEFINE_list("tracks", [], "Train on these tracks alone, wherever they lie.")
    _SEED = flags.DEFINE_integer(
        "seed", None, "Of crops, augmentation, weights and dropout. Default: the config's."
    )
    cli.run(main)
