"""The models and masks that the page offers, and what it says of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import missing
from sccunet import runs
from sccunet.checks import UserError
from sccunet.model_card import read_about
from sccunet.provenance import NOT_STATED
from sccunet.reconstruction import MASKS, Reconstruction

_WORDS = {
    "none": "the model's own",
    "soft": "shares of the mixture",
    "wiener": "Wiener filter",
}


def offered(given: Sequence[str]) -> list[Path]:
    """Returns the folders of the given models, then of those that ship with sccunet.

    Args:
      given: paths, or names of models that ship with sccunet.

    Raises:
      UserError: if one cannot be loaded here, or there is none.
    """
    first = [runs.model_path(path) for path in given]
    for path in first:
        runs.load_config(path)
        if runs.kind_of(path) != runs.PORTABLE:
            missing.check("tensorflow", flag=f"--model={path}")
    others = [path for path in runs.shipped_models() if path not in first]
    return [*first, *others] or [runs.shipped_model()]  # which raises the error


def described(path: Path) -> dict[str, Any]:
    """Returns what the page says of a model: its name, its stems, and rows of a table."""
    model, card = runs.load_config(path).model, path / runs.CARD
    about = read_about(card.read_text(encoding="utf-8")) if card.is_file() else None
    rows = {
        "Stems": ", ".join(model.stems),
        "Network": "Spectrogram-Channels U-Net (arXiv:1810.11520),"
        f" {model.parameters:,} parameters, {model.sample_rate} Hz",
        "Trained on": about.training_data if about else NOT_STATED,
        "Licence": about.licence if about else NOT_STATED,
    }
    return {"name": path.resolve().name, "stems": model.stems, "rows": rows}


def masks() -> dict[str, str]:
    """Returns the masks that can be computed here, with what they are."""
    found = {mask: _WORDS[mask] for mask in MASKS}
    try:
        missing.check("norbert")
    except UserError:
        del found["wiener"]
    return found


class Separators:
    """Loads separators; keeps the last, which is often asked for again.

    Args:
      models: from `offered`.
    """

    def __init__(self, models: Sequence[Path]):
        self.models = models
        self._last: tuple[tuple[int, str] | None, Any] = None, None

    def __call__(self, model: int, mask: str):
        """Returns the separator of a model, by its number, with a mask."""
        from sccunet.separation import Separator

        if self._last[0] != (model, mask):
            self._last = None, None  # not both in memory
            loaded = Separator.load(self.models[model], Reconstruction(mask))
            self._last = (model, mask), loaded
        return self._last[1]
