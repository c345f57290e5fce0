"""The excerpt of the validation that TensorBoard shows."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipeline import loader, places
from data_pipeline.tracks import Segment
from sccunet.config import Config

_SECONDS = 6.0
_LOOKED_AT = 32


def liveliest(segments: Sequence[Segment], config: Config) -> np.ndarray:
    """Returns the excerpt in which the quietest stem is loudest, of a few evenly spread ones.

    Elsewhere a stem may be silent.

    Args:
      segments: of the validation, each at least one patch long.
      config: the run's config.

    Returns:
      float32 [stems, samples, channels]: whole patches, about 6 seconds, or as many as a segment
      has.
    """
    patch = config.model.patch_samples
    longest = places.longest_crop(segments, config) // patch
    patches = max(1, min(round(_SECONDS * config.model.sample_rate / patch), longest))
    model = dataclasses.replace(config.model, patch_samples=patches * patch)
    config = dataclasses.replace(config, model=model)
    crops = places.fixed_crops(segments, config, _LOOKED_AT)
    # [stems, channels, samples] of each
    crops = (batch[0] for batch in loader.FixedBatches(segments, config, crops, 1))
    return max(crops, key=lambda stems: np.square(stems).mean((1, 2)).min()).transpose(0, 2, 1)
