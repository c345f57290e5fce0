"""The card of a portable model: a page in the form of Hugging Face's model cards.

It states what the config says and what was measured or given; the rest is "not stated". Where notes
are given, they are part of it.
"""

import dataclasses
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import sccunet
from sccunet.config import Config, ConfigError
from sccunet.provenance import NOT_STATED, git_commit

# Licences in Hugging Face's list, in its form.
_LISTED = r"cc0-1\.0|cc-by(-nc)?(-nd|-sa)?-4\.0|mit|apache-2\.0|bsd-[23]-clause|[al]?gpl-3\.0"
# Fields in the card; config.json has all.
_FIELDS = (
    *(f"model.{name}" for name in ("filters", "frame_length", "hop_length", "patch_samples")),
    *(f"model.{name}" for name in ("channels", "input_power", "output")),
    *("loss", "batch_size", "epochs", "learning_rate", "decay", "augment.mix_tracks"),
)

_HEAD = """\
---
{license}
library_name: sccunet
pipeline_tag: audio-to-audio
tags:
- audio
- music-source-separation
- tflite
- openvino
---
"""

_USE = """\
## Use

With sccunet installed, which needs no TensorFlow for this:

```
sccunet separate --model={folder} song.mp3
```

```python
import soundfile
from sccunet import Separator

waveform, sample_rate = soundfile.read("song.wav", always_2d=True)  # [samples, channels]
stems = Separator.load({model})(waveform, sample_rate)
stems[{stem}]  # float32 [samples, channels]
```

network.tflite is the network alone: magnitudes of one patch in, those of each stem out.
"""


@dataclasses.dataclass(frozen=True)
class About:
    """What only people or other programs know of a model.

    Attributes:
      training_data: description of the training data.
      licence: licence of the weights.
      scores: tables and texts in Markdown; "" if there are none.
      notes: sections in Markdown that people write: intended use, sources, recipe, known failures;
        "" if there are none.
    """

    training_data: str = NOT_STATED
    licence: str = NOT_STATED
    scores: str = ""
    notes: str = ""

    def __post_init__(self):
        if self.notes and not self.notes.startswith("## "):
            first = self.notes.partition("\n")[0]
            raise ConfigError(
                f"notes of the card: found {first!r} at the start, expected a heading, '## ...'"
            )


def model_card(name: str, config: Config, about: About, size: int, weights: str) -> str:
    """Returns the card in Markdown, with a head in YAML.

    Args:
      name: name of the model, that of its folder.
      config: config of the run that trained it.
      about: what the config does not say.
      size: bytes of the network's file.
      weights: what the file's weights are, such as "float32".
    """
    model, notes = config.model, f"\n{about.notes.strip()}\n" if about.notes else ""
    facts = {
        "stems": ", ".join(model.stems),
        "sample rate": f"{model.sample_rate} Hz",
        "channels": "left and right together" if model.channels == 2 else "each on its own",
        "parameters": f"{model.parameters:,}",
        "network.tflite": f"{size / 1e6:.2f} MB, weights in {weights}",
        "licence of the weights": about.licence,
        "exported with": f"sccunet {sccunet.__version__}, commit {git_commit()}",
    }
    return f"""\
{_HEAD.format(license=_license(about.licence))}
# {name}

Separates music into {_listed(model.stems)}. A Spectrogram-Channels U-Net (Oh, Kim, Yun 2018,
[arXiv:1810.11520](https://arxiv.org/abs/1810.11520)).

{_table(facts)}

{_USE.format(folder=shlex.quote(name), model=_quoted(name), stem=_quoted(model.stems[0]))}{notes}
## Training data

{about.training_data}

## Scores

{about.scores.strip() or NOT_STATED}

## Config

config.json has all fields; these are the main ones.

{_table({field: _value(config.to_dict(), field) for field in _FIELDS})}
"""


def read_about(card: str) -> About:
    """Reads back from a card of `model_card` what `About` had, without the notes.

    What somebody cut out is "not stated".
    """
    licence = re.search(r"^\| licence of the weights \| (.*) \|$", card, re.MULTILINE)
    parts = re.split(r"^## (.*)\n", card, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    return About(
        sections.get("Training data", NOT_STATED).strip(),
        licence[1].replace("\\|", "|") if licence else NOT_STATED,
        sections.get("Scores", "").strip(),
    )


def _license(licence: str) -> str:
    """Returns the lines of the YAML head that say the licence."""
    name = re.sub(r"[^\w.]+", "-", licence.lower()).strip("-")
    if re.fullmatch(_LISTED, name):
        return f"license: {name}"
    if licence == NOT_STATED:
        return "license: unknown"
    return f"license: other\nlicense_name: {_quoted(name)}"


def _quoted(text: str) -> str:
    """Returns a text as a string of Python, JSON and YAML."""
    return json.dumps(text, ensure_ascii=False)


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _table(rows: Mapping[str, str]) -> str:
    """Returns a table of two columns without a heading."""
    cells = (f"| {name} | {_cell(value)} |" for name, value in rows.items())
    return "\n".join(["| | |", "|---|---|", *cells])


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _value(values: Mapping[str, Any], field: str) -> str:
    for name in field.split("."):
        values = values[name]
    return ", ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)
