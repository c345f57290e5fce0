"""Calibrates a trained network's masks on tracks that it was not trained on.

Examples:
  sccunet calibrate --workdir=RUN --data_dir=DATA
  sccunet calibrate --workdir=RUN --data_dir=DATA --tracks=song1,song2

One number for each stem but the last is added to the logits of its masks, so that the mean of the
stems' SDRs over these tracks is best. It becomes part of RUN's best weights, so separation costs no
more. Choose songs by singers that training has not heard, and as real as those to be separated:
masks of unheard singers are too small, and those of the training songs are not.
RUN/calibration.json records what was done. If RUN is trained further, calibrate again.

It takes 200 patches, evenly spread over the tracks.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli
from sccunet.config import Config, ConfigError
from sccunet.files import lock_folder, read_json, write_whole
from sccunet.runs import load_config, load_unet

_BATCH = 4
_MOST = 200  # patches


def calibrate(
    workdir: str, data_dir: str, split: str = "valid", names: Sequence[str] = ()
) -> list[str]:
    """Calibrates the workdir's best weights.

    Args:
      workdir: a training workdir whose network has masks.
      data_dir: tracks in the MUSDB18-HQ layout.
      split: split of the tracks, if none are named.
      names: take these tracks instead, from any split.

    Returns:
      A line for each stem.

    Raises:
      AudioError: for tracks that cannot be found or read, or are shorter than a patch.
      ConfigError: if the workdir has no weights or is in use, its network has no masks, or a stem
        is silent.
    """
    config = load_config(workdir, workdir=True)
    with lock_folder(workdir, ".lock") as ours:
        if ours is False:  # None: the file system has no locks
            raise ConfigError(
                f"{workdir}: found a run that trains in it, expected one that is over"
            )
        return _calibrate(workdir, config, data_dir, split, names)


def _calibrate(
    workdir: str, config: Config, data_dir: str, split: str, names: Sequence[str]
) -> list[str]:
    if config.model.output != "mask":
        raise ConfigError(
            f"{workdir}: found model.output = {config.model.output!r}, expected 'mask': only masks"
            " are calibrated"
        )
    from data_pipeline.tracks import Segment, find_tracks

    patch = config.model.patch_samples
    tracks = find_tracks(data_dir, config, split=split, names=names, min_frames=patch)
    _warn_of_training_tracks(workdir, data_dir, tracks)
    unet = load_unet(workdir, config)
    from sccunet.calibration import add_offsets, best_offsets
    from sccunet.checkpoints import BEST, save_whole

    segments = [Segment(track, 0, track.frames) for track in tracks]
    found = best_offsets(unet, config.model, lambda: _batches(segments, config))
    add_offsets(unet, found[0])
    save_whole(unet, Path(workdir) / BEST)
    stems = {
        stem: dict(zip(("offset", "sdr_before", "sdr"), map(float, numbers), strict=True))
        for stem, *numbers in zip(config.model.stems, *found, strict=True)
    }
    record = {"tracks": [f"{track.split}/{track.name}" for track in tracks], "stems": stems}
    write_whole(Path(workdir) / "calibration.json", json.dumps(record, indent=1) + "\n")
    return [
        f"{stem}: {found['offset']:+.3f}, SDR {found['sdr_before']:.2f} -> {found['sdr']:.2f} dB"
        for stem, found in stems.items()
    ]


def _warn_of_training_tracks(workdir: str, data_dir: str, tracks: Sequence[Any]) -> None:
    """Warns of tracks that the run was trained on, as its `data.json` lists them."""
    path = Path(workdir) / "data.json"
    if not path.exists():  # as in a workdir of converted weights
        return
    data = read_json(path, "data_dir", "training")
    dirs = [data["data_dir"]] if isinstance(data["data_dir"], str) else data["data_dir"]
    if str(Path(data_dir).resolve()) not in dirs:
        return
    trained = {(split, name) for split, name, *_ in data["training"]}
    if known := [track.name for track in tracks if (track.split, track.name) in trained]:
        cli.warn(f"{workdir} was trained on {', '.join(known)}: its masks are too good there")


def _batches(segments, config: Config):
    """Yields all consecutive patches, float32 [batch, stems, channels, patch_samples]."""
    from tqdm import tqdm

    from data_pipeline import dataset, places, readers

    crops = places.fixed_crops(segments, config, _MOST)
    bar = tqdm(total=len(crops), desc="calibrating", unit="patch", disable=None)
    with bar, readers.plain_errors():
        for batch in dataset.fixed_dataset(segments, config, crops, _BATCH):
            yield batch
            bar.update(len(batch))


def main(_: Sequence[str]) -> None:
    """Calibrates as the flags say."""
    cli.refuse_idle(["split"], _TRACKS.value, "beside --tracks, which are from any split")
    lines = calibrate(_WORKDIR.value, _DATA_DIR.value, _SPLIT.value, _TRACKS.value)
    print(*lines, f"calibrated: {_WORKDIR.value}", sep="\n")


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "A training workdir.", required=True)
    _DATA_DIR = flags.DEFINE_string(
        "data_dir", None, "Tracks in the MUSDB18-HQ layout.", required=True
    )
    _SPLIT = flags.DEFINE_string("split", "valid", "Split to calibrate on.")
    _TRACKS = cli.define_tracks("Calibrate on these tracks instead, from any split.")
    cli.run(main, needs=["tensorflow"])
