"""The network that both services load, from their settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from services.errors import SettingsError
from services.settings import ServiceSettings
from stream.network.download import find_weights
from stream.network.model import Model, load_model


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network and the name that people know it by."""

    name: str
    model: Model


def choose_device(device: str) -> str:
    """`auto` becomes CUDA where there is one, else the CPU; other names stay.

    Raises SettingsError for a device that this machine or torch does not have.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"--device: no {device!r} here ({reason}); use auto or cpu") from None
    return device


def load_network(config: ServiceSettings) -> LoadedModel:
    """Find, read and place the configured network. Raises WeightsError or CheckpointError."""
    torch.set_num_threads(config.threads)
    path = find_weights(config.model, config.cache)
    return LoadedModel(Path(config.model).stem, load_model(path, choose_device(config.device)))
