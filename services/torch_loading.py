"""The reference network that commands load which differentiate, train or look into it: torch's."""

from __future__ import annotations

from pathlib import Path

from services.loading import tell_unnamed
from stream.network.download import find_weights
from stream.torch_network.model import Model, load_model


def find_model(model: str, device: str = "cpu", cache: Path | None = None) -> Model:
    """A network by name or path, on a device. Raises WeightsError or CheckpointError."""
    loaded = load_model(find_weights(model, cache), device)
    tell_unnamed(model, loaded.unnamed, len(loaded.names))
    return loaded
