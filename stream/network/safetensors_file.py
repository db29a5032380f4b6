"""Weights in a safetensors file: the form in which Splitcast ships a network of its own.

Beside the tensors the file names the network and its classes, so that it needs no pickle and no description.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - makes bfloat16 known to NumPy, where safetensors looks for it
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from stream.atomic_file import replacing
from stream.errors import UnreadableCheckpoint
from stream.network.architecture import SCALES, description
from stream.network.checkpoint import Checkpoint
from stream.network.class_names import MAX_CLASSES, MAX_NAME

_MAX_FILE_BYTES = 1 << 30
_MAX_NAMES_TEXT = 1 << 20
_MAX_TENSORS = 20_000
_FLOATS = frozenset({"F16", "BF16", "F32", "F64"})  # as safetensors names them
_INTEGERS = frozenset({"I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"})


def read_safe_checkpoint(path: Path) -> Checkpoint:
    """The weights in a `.safetensors` file that `write_checkpoint` wrote. Raises UnreadableCheckpoint."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise UnreadableCheckpoint(f"{path} is larger than any network")
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            names = _names(metadata.get("names", ""), path)
            network = _network(metadata.get("network", ""), path)
            state = {name: file.get_tensor(name) for name in _tensors(file, path)}
    except (OSError, SafetensorError) as error:
        raise UnreadableCheckpoint(f"{path} is no safetensors file ({error})") from error
    return Checkpoint(description(network[-1], len(names)), names, state, activations={})


def write_checkpoint(
    path: Path, network: str, names: Sequence[str], state: Mapping[str, NDArray[np.generic]]
) -> None:
    """Save the weights of a `yolov5n` ... `yolov5x` in float16, whole or not at all.

    `state` has the names of a YOLOv5 checkpoint. Raises ValueError where float16 cannot hold it.
    """
    with np.errstate(over="ignore"):  # found by what comes out
        halves = {
            name: np.require(values, np.float16 if values.dtype.kind == "f" else None, "C")
            for name, values in state.items()
        }
    for name, values in halves.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} does not fit float16")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        save_file(halves, partial, {"network": network, "names": json.dumps(list(names))})


def _network(name: str, path: Path) -> str:
    if name not in {f"yolov5{scale}" for scale in SCALES}:
        raise UnreadableCheckpoint(f"{path} names no network that Splitcast knows (metadata 'network')")
    return name


def _tensors(file: Any, path: Path) -> list[str]:
    """Names of the tensors in an open file, once it is known from its header that a network may have them."""
    names: list[str] = file.keys()
    if len(names) > _MAX_TENSORS:
        raise UnreadableCheckpoint(f"{path} has {len(names)} tensors; at most {_MAX_TENSORS}")
    for name in names:
        dtype = file.get_slice(name).get_dtype()
        if dtype not in _FLOATS and not (name.endswith(".num_batches_tracked") and dtype in _INTEGERS):
            raise UnreadableCheckpoint(
                f"{path}: tensor {name[:MAX_NAME]!r} is of type {dtype}, not floating point"
            )
    return names


def _names(text: str, path: Path) -> tuple[str, ...]:
    try:
        names = json.loads(text[:_MAX_NAMES_TEXT])
    except (ValueError, RecursionError):
        names = None
    if (
        not isinstance(names, list)
        or not 0 < len(names) <= MAX_CLASSES
        or not all(
            isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable() for name in names
        )
    ):
        raise UnreadableCheckpoint(f"{path} does not name its classes (metadata 'names')")
    return tuple(names)
