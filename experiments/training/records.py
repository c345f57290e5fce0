"""Records of a training run: its config, its data, and the batch of a failed step."""

import dataclasses
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.errors import AudioError
from data_pipeline.names import full_paths
from data_pipeline.tracks import Segment
from sccunet.config import Config, ConfigError
from sccunet.files import read_json, write_whole
from sccunet.runs import CONFIG, load_config

# Fields that a continued run may change: those that do not change what a step computes.
_FREE = ("epochs", "steps_per_execution", "check_steps")


def resolve(
    config: Config,
    workdir: Path,
    data_dirs: Sequence[str | os.PathLike],
    training: Sequence[Segment],
    validation: Sequence[Segment],
    how: str,
) -> Config:
    """Returns the config of the workdir's run, or writes `data.json` into a new workdir.

    Args:
      config: the config as it was given.
      workdir: folder of the run.
      data_dirs: folders of the tracks.
      training, validation, how: from `splits.training_split`.

    Returns:
      The config to train with: that of the run in the workdir, with the given `_FREE` fields, or
      `config` if there is none.

    Raises:
      ConfigError: if the workdir holds a run with another config or other tracks.
    """
    data = {
        "data_dir": full_paths(data_dirs),
        "split": how,
        "training": [_listed(segment, config) for segment in training],
        "validation": [_listed(segment, config) for segment in validation],
    }
    config_path, data_path = workdir / CONFIG, workdir / "data.json"
    if not config_path.exists():
        write_whole(data_path, json.dumps(data, indent=1) + "\n")
        return config
    before = load_config(workdir, workdir=True)
    given = config.to_dict()
    for field, was in before.to_dict().items():
        same = given[field] == was or (field == "loss_weights" and not config.loss_weights)
        if not same and field not in _FREE:
            raise ConfigError(
                f"{config_path}: found a run with {field} = {was}, expected {given[field]};"
                " choose another --workdir"
            )
    was = read_json(data_path, "training", "validation")
    if (was["training"], was["validation"]) != (data["training"], data["validation"]):
        raise ConfigError(
            f"{data_path}: found a run with other training or validation tracks, expected the"
            " same; choose another --workdir"
        )
    return dataclasses.replace(before, **{field: given[field] for field in _FREE})


def _listed(segment: Segment, config: Config) -> list:
    """Returns a segment for JSON: split, track, start, frames, and what is not as usual of two.

    They are the number of the data directory, if it is not the first, and a partial track's stems.
    """
    has = segment.track.has(config)
    stems = [stem for stem, own in zip(config.model.stems, has, strict=True) if own]
    return [
        *(segment.track.split, segment.track.name, segment.start, segment.frames),
        *([segment.directory] if segment.directory else []),
        *([] if all(has) else [stems]),
    ]


def keep_bad_batch(workdir: Path, training: Sequence[Segment], config: Config, step: int) -> str:
    """Writes the batch of a step into the workdir.

    Args:
      workdir: folder of the run.
      training: the training split.
      config: the run's config.
      step: number of the step in the run, from 0.

    Returns:
      The end of the error message about the failed step; it starts with "; its batch".
    """
    import numpy as np

    from data_pipeline.loader import training_batch

    try:
        waveforms, origins = training_batch(training, config, step)
    except AudioError as error:
        return f"; its batch cannot be read again ({error})"
    files = [[path for path, _ in crop] for crop in origins]
    starts = [[start for _, start in crop] for crop in origins]
    content = io.BytesIO()
    np.savez(content, waveforms=waveforms, files=files, starts=starts)
    path = workdir / f"bad_batch_{step}.npz"
    try:
        write_whole(path, content.getvalue())
        kept = f"is saved in {path}"
    except OSError as error:
        kept = f"cannot be saved ({error.strerror})"
    bad = [not np.isfinite(crop).all() for crop in waveforms]
    concerned = [crop for crop, is_bad in zip(files, bad, strict=True) if is_bad or not any(bad)]
    folders = sorted({Path(file).parent for crop in concerned for file in crop})
    names = [folder.name for folder in folders]
    return (
        f"; its batch {kept}"
        + (", with NaN or infinity in crops of " if any(bad) else ", with crops of ")
        + ", ".join(
            name if names.count(name) == 1 else str(folder)
            for name, folder in zip(names, folders, strict=True)
        )
        + ("" if any(bad) else "; a lower config.learning_rate in another --workdir may help")
    )
