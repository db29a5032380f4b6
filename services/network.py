"""The network that both services load, from their settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from services.config import Settings
from stream.model import Model, load_model
from stream.weights import find_weights


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network and the name that people know it by."""

    name: str
    model: Model


def choose_device(device: str) -> str:
    """`auto` becomes CUDA where there is one, else the CPU; other names stay."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_network(config: Settings) -> LoadedModel:
    """Find, read and place the configured network. Raises WeightsError or CheckpointError."""
    torch.set_num_threads(config.threads)
    path = find_weights(config.model, config.cache)
    return LoadedModel(Path(config.model).stem, load_model(path, choose_device(config.device)))
