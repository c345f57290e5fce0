"""Trains Open-Unmix on our stream of crops, with its own network, optimiser, loss and statistics.

PyTorch and openunmix are imported when training starts; `make comparison` installs them.
"""

import contextlib
import copy
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.names import Directories, directories, full_paths
from experiments.baselines.time_budget import TimeBudget
from sccunet.checks import counted
from sccunet.config import Config, ConfigError
from sccunet.files import folder_written_whole, lock_folder

# Defaults of openunmix's training.
_STFT = {"n_fft": 4096, "n_hop": 1024}
_BANDWIDTH = 16_000  # Hz, of the network's input
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 1e-5

_STATISTICS_CROPS = 100  # 10 minutes in crops of 6 s
_VALIDATION_CROPS = 16
_VALIDATIONS = 10  # per stem


@dataclasses.dataclass(frozen=True)
class OpenUnmixOptions:
    """What Open-Unmix is trained on, where, and for how long.

    Attributes:
      data_dirs: a data directory, or several: tracks in the MUSDB18-HQ layout, each at least one
        crop long.
      workdir: a new folder, which appears when all stems are trained.
      minutes: time of the whole training, as `sccunet train_open_unmix --help` defines it.
      hidden_size: size of the LSTM layers, an even number; published: 512.
      batch_size: crops per step.
      seconds: length of a crop.
      tracks: names of the tracks to train on; default: the training split.
    """

    data_dirs: Directories
    workdir: str | os.PathLike
    minutes: float
    hidden_size: int = 512
    batch_size: int = 16
    seconds: float = 6.0
    tracks: tuple[str, ...] = ()


def train_open_unmix(config: Config, options: OpenUnmixOptions) -> None:
    """Trains one Open-Unmix network for each of the config's stems, on the CPU.

    Args:
      config: stems, sample rate, validation split, augmentation and seed; the rest is not used.
      options: data, workdir, time and network.

    Raises:
      AudioError: for data that cannot be trained on, before training starts.
      ConfigError: if openunmix is missing, a setting is invalid, `workdir` exists, or another
        process trains for it.
    """
    with _alone(Path(options.workdir)):
        _check(config, options)
        _train(config, options)


@contextlib.contextmanager
def _alone(workdir: Path) -> Iterator[None]:
    """Context manager that refuses a second run before it trains for a workdir that will exist."""
    folder, name = workdir.parent, f".{workdir.name[:60]}.lock"  # a name has 255 bytes at most
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, name) as ours:
        if ours is False:  # None: the file system has no locks
            raise ConfigError(
                f"{workdir}: found another run that trains for it, expected a --workdir that no run"
                " uses"
            )
        try:
            yield
        finally:
            (folder / name).unlink(missing_ok=True)


def _train(config: Config, options: OpenUnmixOptions) -> None:
    from experiments.baselines.torch_system import import_package

    torch = import_package("torch")
    import_package("openunmix.utils")

    from data_pipeline import dataset, places, splits, tracks, volumes

    samples = round(options.seconds * config.model.sample_rate)
    model = dataclasses.replace(config.model, patch_samples=samples)
    config = dataclasses.replace(config, model=model, batch_size=options.batch_size)
    data_dirs = directories(options.data_dirs)
    training, validation, how = splits.training_split(data_dirs, config, options.tracks)
    print(how)
    tracks.check_finite([segment.track for segment in training + validation])
    training = volumes.with_silence(training, config, data_dirs)
    budget = TimeBudget(60 * options.minutes)
    torch.manual_seed(config.seed)
    crops = places.fixed_crops(training, config, _STATISTICS_CROPS)
    crops = dataset.fixed_dataset(training, config, crops, 1, stereo=True)
    statistics = statistics_of(_batches(crops))
    about = {"statistics_seconds": budget.spent}
    crops = places.fixed_crops(validation, config, _VALIDATION_CROPS)
    crops = dataset.fixed_dataset(validation, config, crops, options.batch_size, stereo=True)
    trained = {}
    for i, stem in enumerate(config.model.stems):
        budget.begin(len(config.model.stems) - i)
        # Each stem sees the same crops.
        stream = dataset.training_dataset(training, config, stereo=True)
        fit = _Fit(config, i, statistics, options.hidden_size, crops)
        trained[stem] = fit.run(_batches(stream), budget)
    about["total_seconds"] = budget.spent
    arguments = {"split": how, "threads": torch.get_num_threads()}
    _write(config, options, trained, arguments, about)
    minutes = about["total_seconds"] / 60
    print(f"Open-Unmix of {', '.join(trained)}, {minutes:.2f} minutes: {options.workdir}")


def _write(config, options, trained, arguments, about) -> None:
    """Writes the workdir: openunmix's files, and a record of each network's training.

    Args:
      config: config of the training.
      options: options of the training.
      trained: stem -> weights and record, from `_Fit.run`.
      arguments: further arguments of the training, for the records.
      about: what all records say of the training of all stems.
    """
    import torch

    settings = {
        "nfft": _STFT["n_fft"],
        "nhop": _STFT["n_hop"],
        "sample_rate": float(config.model.sample_rate),
        "nb_channels": 2,
    }
    of_stem = settings | {
        "hidden_size": options.hidden_size,
        "bandwidth": _BANDWIDTH,
        "lr": _LEARNING_RATE,
        "weight_decay": _WEIGHT_DECAY,
        "batch_size": options.batch_size,
        "seq_dur": options.seconds,
        "seed": config.seed,
        "minutes": options.minutes,
        "data_dir": full_paths(directories(options.data_dirs)),
        **arguments,
        "config": config.to_dict(),
    }
    with folder_written_whole(options.workdir) as folder:
        (folder / "separator.json").write_text(_to_json(settings))
        for stem, (state, record) in trained.items():
            torch.save(state, folder / f"{stem}.pth")
            record = {"args": of_stem, **about, **record}
            (folder / f"{stem}.json").write_text(_to_json(record))


def _check(config: Config, options: OpenUnmixOptions) -> None:
    stems = config.model.stems
    if len(stems) < 2:
        raise ConfigError(
            f"config.model.stems: found {stems}, expected at least two to train on: the mixture is"
            " their sum"
        )
    for stem, other in itertools.permutations(stems, 2):
        if other.startswith(stem):
            # openunmix reads <stem>*.pth as the stem's weights.
            raise ConfigError(
                f"config.model.stems: found {stem!r} and {other!r}, expected no stem that starts"
                " with another stem's name: openunmix would confuse their files"
            )
    if options.hidden_size % 2:
        raise ConfigError(
            f"hidden_size: found {options.hidden_size}, expected an even number: half of it for"
            " each direction"
        )
    if Path(options.workdir).exists():
        raise ConfigError(f"{options.workdir}: found an existing folder, expected a new one")


def _to_json(values: Any) -> str:
    return json.dumps(values, indent=1) + "\n"


def _batches(data):
    """Yields the batches of one of our datasets, torch.float32 [batch, stems, 2, samples]."""
    import tensorflow as tf
    import torch

    from data_pipeline import readers

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1  # leave the cores to the network
    with readers.plain_errors():
        for batch in data.with_options(options):
            yield torch.from_numpy(batch.numpy().copy())


def _encoder():
    """Returns openunmix's transform, [batch, 2, samples] -> magnitudes [batch, 2, bins, frames]."""
    import torch
    from openunmix import transforms

    stft, _ = transforms.make_filterbanks(**_STFT)
    return torch.nn.Sequential(stft, transforms.ComplexNorm())


def statistics_of(batches):
    """Returns mean and standard deviation of the mixtures' magnitudes, float64 [bins] each.

    As in openunmix's training, the magnitudes are averaged over both channels first.
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
    scale[scale == 0] = 1  # a bin that never changes; as in scikit-learn's scaler
    return mean, np.maximum(scale, 1e-4 * scale.max())


class _Fit:
    """Trains the network of one stem.

    Args:
      config: gives stems and sample rate.
      i: index of the stem.
      statistics: statistics of the network's input, from `statistics_of`.
      hidden_size: size of the LSTM layers.
      validation: dataset of a few batches.
    """

    def __init__(self, config: Config, i: int, statistics, hidden_size: int, validation):
        import torch
        from openunmix import model, utils

        rate, n_fft = config.model.sample_rate, _STFT["n_fft"]
        self.i, self.stem = i, config.model.stems[i]
        self.encoder = _encoder()
        self.unmix = model.OpenUnmix(
            nb_bins=n_fft // 2 + 1,
            nb_channels=2,
            hidden_size=hidden_size,
            input_mean=statistics[0],
            input_scale=statistics[1],
            max_bin=int(utils.bandwidth_to_max_bin(rate, n_fft, _BANDWIDTH)),
        )
        self.optimizer = torch.optim.Adam(
            self.unmix.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY
        )
        self.validation = list(_batches(validation))
        self.best = None
        self.losses = []  # losses of the steps since the last validation
        self.record = {
            "steps": 0,
            "seconds": 0.0,
            "best_loss": math.inf,
            "best_step": 0,
            "train_loss_history": [],
            "valid_loss_history": [],
            "valid_step_history": [],
        }

    def run(self, batches, budget: TimeBudget) -> tuple[dict, dict]:
        """Trains while the budget allows it, at least one step.

        Args:
          batches: endless stream of torch.float32 [batch, stems, 2, samples].
          budget: the time, in which this stem's training has begun.

        Returns:
          The weights of the best validation, and a record of the training.
        """
        from tqdm import tqdm

        bar = tqdm(
            total=max(1, round(budget.share)),
            desc=self.stem,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f} of {total} s{postfix}",
            disable=None,  # where it is not a terminal
            leave=False,
        )
        self.unmix.train()
        validated, done = 0, False
        while not done:
            with budget.step():
                self._step(next(batches), budget.progress)
            done = not budget.allows_a_step()
            due = int(_VALIDATIONS * budget.progress)
            if done or due > validated:
                validated = due
                with budget.validation():
                    valid_loss = self._validate()
                bar.set_postfix(steps=self.record["steps"], valid_loss=f"{valid_loss:.4g}")
            bar.update(min(budget.spent_of_share, bar.total) - bar.n)
        bar.close()
        self.record["seconds"] = budget.spent_of_share
        steps, best = counted(self.record["steps"], "step"), self.record["best_loss"]
        print(f"{self.stem}: {steps}, best validation loss {best:.4g}", flush=True)
        return self.best, self.record

    def _loss(self, stems):
        import torch
        from torch.nn import functional

        with torch.no_grad():
            x = self.encoder(stems.sum(dim=1))
            y = self.encoder(stems[:, self.i].contiguous())
        return functional.mse_loss(self.unmix(x), y)

    def _step(self, stems, progress: float) -> None:
        """Makes one update; `progress` in time, from 0 to 1, determines the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * (1 + math.cos(math.pi * progress)) / 2
        self.optimizer.zero_grad()
        loss = self._loss(stems)
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())
        self.record["steps"] += 1

    def _validate(self) -> float:
        """Records and returns the validation loss; keeps the weights if it is the best so far."""
        import torch

        self.unmix.eval()
        with torch.inference_mode():
            losses = [self._loss(stems).item() * len(stems) for stems in self.validation]
        self.unmix.train()
        valid_loss = sum(losses) / sum(len(stems) for stems in self.validation)
        record = self.record
        record["train_loss_history"].append(sum(self.losses) / len(self.losses))
        record["valid_loss_history"].append(valid_loss)
        record["valid_step_history"].append(record["steps"])
        self.losses = []
        if not math.isfinite(valid_loss):
            raise ConfigError(
                f"config.model.stems: the loss of {self.stem} became {valid_loss};"
                " another --seed or a larger --batch_size may help"
            )
        if valid_loss < record["best_loss"]:
            record["best_loss"], record["best_step"] = valid_loss, record["steps"]
            self.best = copy.deepcopy(self.unmix.state_dict())
        return valid_loss
