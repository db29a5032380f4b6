"""The network that services and commands load, from their settings."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import structlog

from services.errors import SettingsError
from services.printable import well_formed
from services.settings import EngineChoice, ServiceSettings
from stream.network.download import find_weights
from stream.network.engine import EngineName, RunnableNetwork, open_network
from stream.network.names import DEFAULT_SPLIT

log = structlog.get_logger(__name__)

_GPU_DRIVERS = ("/proc/driver/nvidia/version", "/dev/dxg")  # of Linux, and of Linux in Windows


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network and the name that people know it by."""

    name: str
    model: RunnableNetwork

    @property
    def default_split(self) -> str:
        """Where it is split unless told otherwise: an exported network at its only point."""
        points = self.model.split_points
        return DEFAULT_SPLIT if DEFAULT_SPLIT in points else points[0]


def choose_engine(engine: EngineChoice, device: str) -> tuple[EngineName, str]:
    """The engine to compute with, and its device: `auto` is torch where that is no CPU, else ONNX Runtime.

    torch is loaded only where it is asked for, or where there may be a GPU for it.
    Raises SettingsError for a device that this machine or the engine does not have.
    """
    if engine == "onnxruntime" and device not in ("auto", "cpu"):
        raise SettingsError(
            f"--device: ONNX Runtime computes on the CPU, not on {device!r}; take --engine torch"
        )
    if engine == "onnxruntime" or (engine == "auto" and (device == "cpu" or _has_no_gpu(device))):
        return "onnxruntime", "cpu"
    from services.torch_devices import choose_device

    chosen = choose_device(device)
    if engine == "auto":
        engine = "onnxruntime" if chosen == "cpu" else "torch"
    return engine, chosen


def load_network(config: ServiceSettings) -> LoadedModel:
    """Find, read and place the configured network. Raises WeightsError or CheckpointError."""
    given = config.engine
    if given == "auto" and Path(config.model).is_dir():
        given = "onnxruntime"  # which it was exported for
    engine, device = choose_engine(given, config.device)
    name = well_formed(Path(config.model).stem)  # it goes into messages and metrics
    return LoadedModel(name, find_network(config.model, engine, device, config.threads, config.cache))


def find_network(
    model: str,
    engine: EngineName = "onnxruntime",
    device: str = "cpu",
    threads: int = 1,
    cache: Path | None = None,
) -> RunnableNetwork:
    """A network by name or path, in an engine. Raises WeightsError or CheckpointError."""
    network = open_network(find_weights(model, cache), engine, device, threads)
    tell_unnamed(model, network.unnamed, len(network.names))
    return network


def tell_unnamed(model: str, unnamed: int, classes: int) -> None:
    """Warn of classes that the checkpoint does not name."""
    if unnamed:
        log.warning(
            "the checkpoint does not name all its classes: the others are called class0, class1 and so on",
            model=model,
            unnamed=unnamed,
            classes=classes,
        )


def _has_no_gpu(device: str) -> bool:
    """Whether `auto` can only be the CPU, as far as can be said without loading torch, which takes seconds."""
    if device != "auto":
        return False
    return find_spec("torch") is None or not any(Path(driver).exists() for driver in _GPU_DRIVERS)
