"""What is written for a recording: which stems, in which files, and how."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence

from data_pipeline.formats import WRITABLE, Format
from data_pipeline.names import split_names
from sccunet.config import ConfigError
from sccunet.files import name_that_fits

MIXTURE, RESIDUAL = "mixture", "residual"
CLIP_MODES = ("rescale", "clamp", "none")
# Order of the stems in a .stem.mp4, in MUSDB18 and for players.
_MUSDB = ("drums", "bass", "other", "vocals")


@dataclasses.dataclass(frozen=True)
class Output:
    """Which files are written for a recording, and how.

    Attributes:
      sums: name of a stem that is written -> the model's stems that are summed in it, as
        `parse_stems` returns them.
      ending: extension of the files, one of `WRITABLE`.
      encoding: sample format, one of the format's; None if it is lossy.
      clip_mode: treatment of samples beyond full scale. "rescale": if there are any, all stems of
        the recording are divided by one factor; "clamp": the samples are limited to full scale;
        "none": they are kept, which only floats allow.
      residual: whether to also write the mixture minus all stems.
      bitrate: of a lossy format, in kbit/s; None: the format's own.
      pattern: names of the files without extension, as `check_pattern` allows them.
    """

    sums: Mapping[str, Sequence[str]]
    ending: str = ".wav"
    encoding: str | None = "float32"
    clip_mode: str = "none"
    residual: bool = False
    bitrate: int | None = None
    pattern: str = "{stem}"

    @property
    def format(self) -> Format:
        """Format of the files."""
        return WRITABLE[self.ending]

    @property
    def names(self) -> list[str]:
        """Names of what is written: the stems, behind the mixture if all are in one file."""
        names = [*self.sums, RESIDUAL] if self.residual else list(self.sums)
        if not self.format.stems:
            return names
        return [MIXTURE, *(_MUSDB if {*names} == {*_MUSDB} else names)]

    def files(self, track: str) -> dict[str, str]:
        """Returns name -> file for each of `names`; `track` is the recording's name.

        All stems of a .stem.mp4 are in one file, which has the name of the recording.
        """
        if self.format.stems:
            return dict.fromkeys(self.names, name_that_fits(track, self.ending))
        fields = {"{track}": track}
        found = {}
        for name in self.names:
            fields["{stem}"] = name
            file = re.sub("{track}|{stem}", lambda field: fields[field[0]], self.pattern)
            found[name] = name_that_fits(file, self.ending)
        return found

    def written(self, track: str) -> list[str]:
        """Returns the files of a recording."""
        return [*dict.fromkeys(self.files(track).values())]


def check_pattern(pattern: str) -> None:
    """Checks the names of files with the fields {track} and {stem}.

    Raises:
      ConfigError: if it has other fields, no {stem}, or cannot be a file's name.
    """
    rest = re.sub("{track}|{stem}", "", pattern)
    ok = "{stem}" in pattern and not re.search(r"[{}/\0\n]", rest) and os.sep not in rest
    if not ok or pattern.startswith("."):
        raise ConfigError(
            f"--name: found {pattern!r}, expected a file name without ending, with {{stem}} and"
            " perhaps {track} in it"
        )


def parse_stems(wanted: Sequence[str], stems: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns which of the model's stems are summed in each file.

    Args:
      wanted: names of the model's stems; or `NAME=STEM+STEM+...`; or `accompaniment`, which is all
        stems but `vocals` if the model has no stem of that name; or several of these with commas
        between them. Empty: all stems.
      stems: the model's stems.

    Raises:
      ConfigError: for a stem that the model does not have, or a name that is given twice.
    """
    if not wanted:
        return {stem: (stem,) for stem in stems}
    sums: dict[str, tuple[str, ...]] = {}
    for entry in (entry for text in wanted for entry in split_names(text, stems)):
        name, given, parts = entry.partition("=")
        if given:
            chosen = tuple(parts.split("+"))
        elif name == "accompaniment" and name not in stems and "vocals" in stems:
            chosen = tuple(stem for stem in stems if stem != "vocals")
        else:
            chosen = (name,)
        for stem in chosen:
            if stem not in stems:
                raise ConfigError(
                    f"--stems: found {stem!r} in {entry!r}, expected some of {', '.join(stems)},"
                    " or named sums (NAME=STEM+STEM)"
                )
        if name in stems and chosen != (name,):
            raise ConfigError(f"--stems: found {entry!r}, expected a name other than a stem's")
        if name == RESIDUAL and given:
            raise ConfigError(
                f"--stems: found {entry!r}, expected another name: --residual uses this one"
            )
        if not name or name != os.path.basename(name) or name in (".", ".."):
            raise ConfigError(f"--stems: found the name {name!r}, expected a file name")
        if name in sums or len(set(chosen)) < len(chosen):
            raise ConfigError(f"--stems: found {entry!r}, expected every name once")
        sums[name] = chosen
    return sums
