"""The reference network that commands load which differentiate, train or look into it: torch's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from codec.feature.profile import Profile
from codec.layout import Layout
from services.errors import SettingsError
from services.loading import tell_unnamed
from stream.network.download import find_weights
from stream.torch_network.model import Model, load_model
from stream.torch_network.sensitivity import StepMapper


def find_model(model: str, device: str = "cpu", cache: Path | None = None) -> Model:
    """A network by name or path, on a device. Raises WeightsError or CheckpointError."""
    loaded = load_model(find_weights(model, cache), device)
    tell_unnamed(model, loaded.unnamed, len(loaded.names))
    return loaded


def step_mappers(
    model: str, device: str, threads: int, cache: Path | None = None
) -> Callable[[str, Layout, Profile], StepMapper]:
    """What makes measurers of step maps, of a network by name or path: each for a split point, tensors and a profile.

    Sets torch's number of threads, which is the process's: left to itself it takes all cores.
    Raises SettingsError for the folder of an exported network, WeightsError or CheckpointError.
    """
    if find_weights(model, cache).is_dir():
        raise SettingsError(
            f"--feedback: {model} is an exported network, which cannot be differentiated; give --model the file that "
            "it was made from"
        )
    torch.set_num_threads(threads)
    return partial(StepMapper, find_model(model, device, cache))
