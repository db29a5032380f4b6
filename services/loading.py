"""The network that services and commands load, from their settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import structlog
import torch

from services.errors import SettingsError
from services.printable import well_formed
from services.settings import ServiceSettings
from stream.network.download import find_weights
from stream.torch_network.model import Model, load_model

log = structlog.get_logger(__name__)


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
    name = well_formed(Path(config.model).stem)  # it goes into messages and metrics
    return LoadedModel(name, find_model(config.model, choose_device(config.device), config.cache))


def find_model(model: str, device: str = "cpu", cache: Path | None = None) -> Model:
    """A network by name or path, on a device. Raises WeightsError or CheckpointError."""
    loaded = load_model(find_weights(model, cache), device)
    if loaded.unnamed:
        log.warning(
            "the checkpoint does not name all its classes: the others are called class0, class1 and so on",
            model=model,
            unnamed=loaded.unnamed,
            classes=len(loaded.names),
        )
    return loaded
