"""Separates small damaged files of every container that PyAV writes here, and checks what comes.

  python tests/fuzz_audio.py --minutes=30 --seed=1

A round is a batch of files, one of eight whole, the others with flipped, cut, inserted, joined and
padded bytes, separated by one run of `sccunet separate` with a tiny network. What must hold:

- the program ends by itself, without a traceback, with code 1 if a file failed, otherwise 0;
- it takes at most 20 s for a file, and 1 GB of memory;
- every file has a line or stems, never neither, and nothing else is left in the output;
- whole files have stems, whatever is beside them;
- stems are as long as what decodes: the samples that a plain loop over PyAV's
  frames counts (of codecs with checksums, those that are right), or those that libsndfile counts,
  and the silence that the program reports. With lossy codecs two frames more or less are allowed,
  since FFmpeg's libraries do not always know the coder's padding; without loss, none.

Files that break a rule are kept. `test_fuzz.py` runs one round.
"""

import argparse
import contextlib
import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import process
import soundfile
from encoding import encode

RATE = 48_000
SECONDS_PER_FILE, MEMORY = 20, 10**9
_CODECS = (
    *("aac", "libmp3lame", "libopus", "flac", "pcm_s16le", "pcm_s16be", "ac3", "mp2", "wavpack"),
    *("tta", "alac", "adpcm_ima_wav", "pcm_f32le", "pcm_s24le", "pcm_mulaw"),
)
# Those that write playlists, checksums or many files, to the network or to devices.
_NO_FILES = re.compile(
    "hls|hds|dash|smooth|segment|tee|fifo|rt[ps]|crc|hash|md5|whip|null|alsa|oss|fbdev|webm_|image2|"
    "data|sap|mpjpeg|icecast|pulse|sdl|xv|opengl"
)
# As in data_pipeline/frames.py: FFmpeg's libraries check only if told to.
_CHECKED = ("flac", "wavpack", "tta", "tak", "ape", "mlp", "truehd", "ac3", "eac3")
_LOSSLESS = re.compile("pcm|adpcm|flac|alac|wavpack|tta")
_TAG = b"TAG" + b"title".ljust(125, b"\0")


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a round.

    Attributes:
      path: where it is.
      change: what was done to it; "" for a whole one.
    """

    path: Path
    change: str

    @property
    def whole(self) -> bool:
        return not self.change


def whole_files(rng: np.random.Generator, most: int | None = None) -> dict[str, bytes]:
    """Returns name -> content of files of half a second in all, or some, containers and codecs.

    Args:
      rng: chooses.
      most: number of files.
    """
    kinds = []
    for name in sorted(av.formats_available):
        if not _NO_FILES.search(name):
            kinds += [(name, codec) for codec in _CODECS if _writes(name)]
    sounds = rng.normal(scale=0.1, size=(RATE // 2, 2)).astype(np.float32)
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for subtype in ("VORBIS", "OPUS"):  # PyAV's wheels have no encoder of Vorbis
            path = Path(folder) / "x.ogg"
            soundfile.write(path, sounds, RATE, subtype=subtype)
            files[f"soundfile-{subtype.lower()}.ogg"] = path.read_bytes()
        rng.shuffle(kinds)
        for name, codec in kinds:
            if len(files) == most:
                break
            ending = min(av.ContainerFormat(name, "w").extensions, default="bin")
            path = Path(folder) / f"x.{ending}"
            if _encode(path, name, codec, sounds) and _reads(path):
                files[f"{name}-{codec}.{ending}"] = path.read_bytes()
            path.unlink(missing_ok=True)
    return files


def _writes(name: str) -> bool:
    try:
        return av.ContainerFormat(name, "w").is_output
    except ValueError:
        return False


def _encode(path: Path, name: str, codec: str, sounds: np.ndarray) -> bool:
    """Writes a file, if the container can hold the codec."""
    try:
        encode(path, sounds, RATE, codec, name)
    except (av.error.FFmpegError, ValueError):
        return False
    return path.is_file()


def _reads(path: Path) -> bool:
    """Whether PyAV reads the whole of a file that it wrote."""
    count = decoded(path)
    return count["samples"] > 0.4 * RATE and not count["bad"]


def changed(data: bytes, others: Sequence[bytes], rng: np.random.Generator) -> tuple[bytes, str]:
    """Damages a file's content in one to three ways; returns what was done, too."""
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        kind = str(rng.choice(list(_CHANGES)))
        data = _CHANGES[kind](bytearray(data), others, rng)
        done.append(kind)
    return bytes(data), ", ".join(done)


def _place(data: bytes, rng: np.random.Generator) -> int:
    """A place in the data, half of the times near the start, where the headers are."""
    near = min(len(data), 300)
    return int(rng.integers(near if rng.random() < 0.5 else len(data) or 1))


def _flip(data, _, rng):
    for _ in range(rng.choice([1, 2, 10, 100])):
        if data:
            data[_place(data, rng)] ^= 1 << rng.integers(8)
    return data


def _extreme(data, _, rng):
    """Writes bytes that are the extremes of many fields."""
    at, size = _place(data, rng), int(rng.choice([1, 2, 4, 8]))
    values = (b"\0", b"\xff", b"\x7f", b"\x80", b"\x01")
    data[at : at + size] = values[rng.integers(len(values))] * size
    return data


def _overwrite(data, _, rng):
    at, size = _place(data, rng), int(rng.integers(1, 20_000))
    data[at : at + size] = bytes(size) if rng.random() < 0.5 else rng.bytes(size)
    return data


def _remove(data, _, rng):
    at = _place(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 5_000)) :]


def _repeat(data, _, rng):
    at = _place(data, rng)
    return data[:at] + data[max(at - 5_000, 0) :]


def _pad(data, _, rng):
    kinds = (bytes(int(rng.integers(1, 200_000))), rng.bytes(int(rng.integers(1, 50_000))), _TAG)
    return data + kinds[rng.integers(3)]


_CHANGES: Mapping[str, Callable] = {
    "flip": _flip,
    "extreme": _extreme,
    "overwrite": _overwrite,
    "remove": _remove,
    "repeat": _repeat,
    "cut end": lambda data, _, rng: data[: int(rng.integers(1, len(data) + 1))],
    "cut start": lambda data, _, rng: data[_place(data, rng) :],
    "pad": _pad,
    "lead": lambda data, _, rng: rng.bytes(int(rng.integers(1, 3_000))) + data,
    "join itself": lambda data, _, rng: data + data,
    "join another": lambda data, others, rng: data + others[rng.integers(len(others))],
}


def write_round(
    folder: Path, wholes: Mapping[str, bytes], count: int, rng: np.random.Generator
) -> list[File]:
    """Writes a round's files into a folder."""
    names, files = list(wholes), []
    for number in range(count):
        name = names[rng.integers(len(names))]
        path = folder / f"{number:03}-{name}"
        if number % 8 == 0:
            path.write_bytes(wholes[name])
            files.append(File(path, ""))
        else:
            content, change = changed(wholes[name], list(wholes.values()), rng)
            path.write_bytes(content)
            files.append(File(path, change))
    return files


def decoded(path: Path) -> dict[str, Any]:
    """Counts what a plain loop over PyAV's frames decodes, up to a change of format.

    Returns:
      "samples", the largest "frame", the numbers of "good" frames and of "bad" packets, "codec".
    """
    found = {"samples": 0, "frame": 0, "good": 0, "bad": 0, "codec": ""}
    layout = None
    try:
        with av.open(str(path), metadata_errors="ignore") as file:
            streams = file.streams.audio
            marked = [each for each in streams if each.disposition & av.stream.Disposition.default]
            stream = (marked or list(streams))[0]
            found["codec"] = stream.codec_context.name
            if found["codec"] in _CHECKED:
                stream.codec_context.options = {"err_detect": "crccheck+explode"}
            for packet in file.demux(stream):
                try:
                    for frame in packet.decode():
                        layout = layout or (frame.sample_rate, frame.layout.nb_channels)
                        if layout != (frame.sample_rate, frame.layout.nb_channels):
                            return found
                        found["samples"] += frame.samples
                        found["frame"] = max(found["frame"], frame.samples)
                        found["good"] += 1
                except (av.error.FFmpegError, OSError):
                    found["bad"] += 1
    except IndexError:  # no stream, or PyAV's way to end if one begins within the file
        pass
    except (av.error.FFmpegError, OSError, AttributeError):
        found["bad"] += 1
    return found


def make_run(folder: Path) -> Path:
    """Makes a training workdir with a tiny network."""
    from sccunet import build_model
    from sccunet.checkpoints import BEST, save_whole
    from sccunet.config import Config, ModelConfig

    model = ModelConfig(
        stems=("vocals", "rest"),
        frame_length=512,
        hop_length=128,
        patch_samples=8_192,
        filters=(4, 4),
    )
    config = Config(model=model)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    save_whole(build_model(config), folder / BEST)
    return folder


def watch(running: process.Running, progress: Callable[[], int]) -> str:
    """Waits until a program ends; kills it and says why if it hangs or takes too much memory."""
    proc = Path(f"/proc/{running.process.pid}")
    last, since, wall = -1, 0.0, 0.0
    while running.process.exitcode is None:
        running.process.join(0.1)
        try:
            memory = int(re.search(r"VmRSS:\s+(\d+)", (proc / "status").read_text())[1]) * 1024
            used = (
                sum(map(int, (proc / "stat").read_text().rpartition(")")[2].split()[11:13])) / 100
            )
        except (OSError, TypeError):  # it has ended
            continue
        if progress() > last:
            last, since, wall = progress(), used, time.monotonic()
        reason = ""
        if memory > MEMORY:
            reason = f"{memory / 1e6:.0f} MB of memory"
        # The processor's time is that of all threads; a machine with other work needs longer.
        if used - since > 2 * SECONDS_PER_FILE or time.monotonic() - wall > 15 * SECONDS_PER_FILE:
            reason = (
                f"no file done in {time.monotonic() - wall:.0f} s ({used - since:.0f} s of CPU)"
            )
        if reason:
            running.process.kill()
            running.process.join()
            return reason
    return ""


def check_round(run: Path, files: Sequence[File], out: Path) -> dict[str, str]:
    """Separates the files; returns file name -> which rule it breaks."""
    running = process.start(
        "separate", f"--model={run}", f"--output_dir={out}", *(file.path for file in files)
    )
    reason = watch(
        running,
        lambda: (
            running.read("stderr").count("error: ")
            + (sum(1 for each in out.iterdir() if each.name[0] != ".") if out.exists() else 0)
        ),
    )
    stderr, code = running.read("stderr"), running.process.exitcode
    lines = re.findall(r"error: .*", stderr)  # behind a bar, perhaps
    broken = {}
    if reason or "Traceback" in stderr or code != bool(lines):
        broken["the program"] = reason or f"exit code {code}: {stderr[-3_000:]}"
    left = {path.name for path in out.iterdir()} if out.exists() else set()
    if extra := left - {file.path.stem for file in files}:
        broken["the output"] = f"found {sorted(extra)}"
    running.folder.cleanup()
    if not reason:
        counts = _counts(file.path for file in files)
        for file in files:
            names = str(file.path), str(out / file.path.stem)
            mine = [line for line in lines if any(name in line for name in names)]
            what = _check_file(file, out / file.path.stem, mine, counts[str(file.path)])
            if what:
                broken[file.path.name] = f"[{file.change}] {what}"
    return broken


def _check_file(file: File, folder: Path, lines: Sequence[str], count: Mapping[str, Any]) -> str:
    """Returns which rule a file breaks, or ""; `count` is what decodes."""
    line = " ".join(lines)
    if len(lines) > 1 or (lines and file.whole):
        return f"lines: {line}"
    if not folder.exists():
        decodes = count["good"] > 10 and not count["bad"] and "NaN" not in line
        return f"refused, but {count} decode: {line}" if decodes or not line else ""
    stems = [soundfile.info(folder / f"{stem}.wav") for stem in ("vocals", "rest")]
    lengths = {stem.frames for stem in stems}
    if len(lengths) > 1:
        return f"stems of lengths {lengths}"
    length, rate = lengths.pop(), stems[0].samplerate
    silent = re.search(r"([\d.]+) s of it, from", line)
    held = length - (float(silent[1]) * rate if silent else 0)
    frames = 0 if _LOSSLESS.match(count["codec"]) else 1 if file.whole else 2
    rounded = 0.005 * rate + 1 if silent else 0  # it is reported to a hundredth of a second
    slack = frames * count["frame"] + rounded
    if any(abs(held - count[reader]) <= slack for reader in ("samples", "soundfile")):
        return ""
    return f"{held:.0f} samples that are not silent, but {count} decode: {line}"


def _counts(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Returns what `decoded` and libsndfile count, from a process that may be killed."""
    command = [sys.executable, __file__, "--count", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return json.loads(done.stdout)


def _print_counts(paths: Iterable[str]) -> None:
    counts = {}
    for path in paths:
        counts[path] = {**decoded(Path(path)), "soundfile": -(10**9)}
        with contextlib.suppress(soundfile.LibsndfileError, OverflowError):
            counts[path]["soundfile"] = soundfile.info(path).frames
    print(json.dumps(counts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--files", type=int, default=64, help="in a round")
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="folder of what fails")
    parser.add_argument("--count", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        return _print_counts(given.count)
    wholes = whole_files(np.random.default_rng(given.seed))
    kinds = len({name.partition("-")[0] for name in wholes})
    print(f"{len(wholes)} whole files, {kinds} containers", flush=True)
    end, seed, failed = time.monotonic() + 60 * given.minutes, given.seed, 0
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run")
        while time.monotonic() < end:
            songs, out = Path(folder) / f"songs {seed}", Path(folder) / f"out {seed}"
            songs.mkdir()
            files = write_round(songs, wholes, given.files, np.random.default_rng(seed))
            broken = check_round(run, files, out)
            for name, reason in broken.items():
                print(f"seed {seed}, {name}: {reason}", flush=True)
                if (songs / name).exists():
                    given.keep.mkdir(exist_ok=True)
                    (songs / name).rename(given.keep / f"{seed}-{name}")
            failed += len(broken)
            subprocess.run(["rm", "-r", songs, out], check=False)
            seed += 1
    print(f"{seed - given.seed} rounds of {given.files} files: {failed} broken rules")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
