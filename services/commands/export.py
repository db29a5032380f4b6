"""`splitcast export`: writes both halves of a network as ONNX models, and what crosses between them as JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from services.commands.settings import ExportSettings
from services.errors import SettingsError
from services.metrics import VERSION
from services.printable import printable, well_formed
from services.settings import require_folder_of
from stream.errors import BrokenNetwork
from stream.network.download import find_weights
from stream.network.engine import RunnableNetwork
from stream.network.exported import write_export
from stream.network.network import Network, load_network

TOLERANCE = 1e-3
"""How far a logit may lie from the reference's, relative to the largest one: float32 is added up in another order."""


def run_export(settings: ExportSettings) -> None:
    """Write the folder, compare it with torch where that is installed, and say what was written.

    Raises SettingsError, WeightsError, CheckpointError, UnknownSplitPoint, OSError.
    """
    folder = settings.output
    require_folder_of(folder, "--output")
    path = find_weights(settings.model)
    if path.is_dir():
        raise SettingsError("--model: an exported network cannot be exported again; give its .pt file")
    network = load_network(path)
    name = well_formed(Path(settings.model).stem)
    reference = _reference(network)

    def check(exported: RunnableNetwork) -> None:
        if reference is not None:
            compare(exported, reference, settings.split)

    exported = write_export(
        network, name, settings.split, folder, software=f"splitcast/{VERSION}", check=check
    )
    compared = (
        "torch is not installed, so that it was run but not compared"
        if reference is None
        else f"logits within {TOLERANCE:g} of torch's"
    )
    print(f"{printable(str(folder))}: {printable(name)} split at {settings.split}; {compared}")
    for tensor in exported.description.tensors:
        print(f"  {tensor.name}: {tensor.channels} channels, 1/{tensor.stride} of the picture's side")


def compare(exported: RunnableNetwork, reference: RunnableNetwork, split: str) -> None:
    """Raises BrokenNetwork where head, tail or both put out something else than the reference, at any of two sizes."""
    for cells in ((2, 3), (5, 4)):
        height, width = (side * exported.stride for side in cells)
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        tensors = exported.head(split, (height, width))(picture)
        expected = reference.head(split, (height, width))(picture)
        (logits,), (expected_logits,) = exported.tail(split)([tensors]), reference.tail(split)([expected])
        made = [*tensors.values(), *logits]
        for values, right in zip(made, [*expected.values(), *expected_logits], strict=True):
            difference, largest = float(np.abs(values - right).max()), float(np.abs(right).max())
            if not difference <= TOLERANCE * max(largest, 1.0):
                raise BrokenNetwork(
                    f"what was exported differs from torch by {difference:g} where {largest:g} is the largest value; "
                    "nothing was written"
                )


def _reference(network: Network) -> RunnableNetwork | None:
    """The network in torch; None where that is not installed."""
    try:
        from stream.torch_network.engine import TorchNetwork
        from stream.torch_network.model import torch_model
    except ModuleNotFoundError:
        return None
    return TorchNetwork(torch_model(network), network.graph)
