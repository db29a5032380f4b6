"""Reads a YOLOv5 checkpoint (.pt) as data: its pickle is interpreted, never executed.

A checkpoint is a zip file. `data.pkl` describes the objects as a pickle program, `data/KEY` holds the bytes of
each tensor storage. Unpickling such a program imports and calls whatever it names, so a checkpoint from elsewhere
could run anything. Here the program is followed by a small interpreter, whose objects are inert.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.errors import CheckpointError, UnreadableCheckpoint
from stream.network.checkpoint_archive import CheckpointArchive, open_archive
from stream.network.class_names import class_names
from stream.network.file_kind import what_it_is
from stream.network.pickle_reader import PickledObject, PickleReader, StoredTensor

_MAX_ENTRIES = 20_000  # modules and tensors; a shared one may stand for a tree of any size
_MAX_PATH = 200  # characters of a module's or tensor's path; a module may even contain itself
_MAX_REASON = 200  # characters of an error that is passed on
_MAX_WRAPPERS = 8  # one in another
_WRAPPED = ("module", "model", "ema")  # where DataParallel, AutoShape, ModelEMA and the like keep the network


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a YOLOv5 checkpoint holds, before anything is built from it."""

    yaml: Mapping[str, object]  # untrusted: the network's description as its author wrote it
    names: tuple[str | None, ...] | None  # of the classes, None for one without a name
    state: dict[str, NDArray[np.generic]]  # parameters and buffers as stored, keyed as by torch's state_dict
    activations: dict[str, PickledObject]  # of each convolution, by the path of its module


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights and description in a `.pt` file, read without running any of it.

    Prefers the averaged weights (`ema`) where the file has both, as the official tools do.
    Raises UnreadableCheckpoint, UnsafeCheckpoint.
    """
    with _translated(path), path.open("rb") as file, open_archive(file) as archive:
        contents = CheckpointArchive(archive)
        root = PickleReader(contents.storage).read(contents.pickle())
        candidates = _find_models(root)
        model = candidates[0]
        tensors, activations = _walk(model)
        if sum(stored.dtype.itemsize * prod(stored.shape) for stored in tensors.values()) > contents.size:
            # Each tensor fits its storage, but many of them may share one: the file would grow in memory.
            raise UnreadableCheckpoint("declares more weights than the file holds")
        state = {name: contents.load(stored) for name, stored in tensors.items()}
        yaml = model.state.get("yaml")
        if not isinstance(yaml, dict):
            raise UnreadableCheckpoint(
                "lacks the description of its network (yaml); use an official checkpoint"
            )
        return Checkpoint(yaml, _find_names(root, candidates), state, activations)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turns what zipfile and pickletools raise on damaged bytes into one error."""
    try:
        yield
    except CheckpointError as error:
        error.args = (f"{path}: {error}",)
        raise
    except FileNotFoundError as error:
        raise UnreadableCheckpoint(f"no checkpoint at {path}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise UnreadableCheckpoint(f"{path} cannot be read: {error.strerror}") from error
    except zipfile.BadZipFile as error:
        raise UnreadableCheckpoint(f"{path} is {what_it_is(path)}") from error
    except Exception as error:  # damaged bytes make zipfile and pickletools raise a dozen unrelated types
        shown = repr(error)[:_MAX_REASON]
        raise UnreadableCheckpoint(f"{path} is damaged ({shown}); fetch it again") from error


def _find_models(root: object) -> list[PickledObject]:
    """The networks in a checkpoint, the one to use first. Raises UnreadableCheckpoint where there is none."""
    if isinstance(root, PickledObject):  # torch.save(model, path)
        return [_unwrapped(root)]
    if not isinstance(root, dict):
        raise UnreadableCheckpoint("not a YOLOv5 checkpoint: it should be a dictionary with a 'model'")
    models = [_unwrapped(root[key]) for key in ("ema", "model") if isinstance(root.get(key), PickledObject)]
    if models:
        return models
    nested = [value for value in root.values() if isinstance(value, dict)]
    if any(isinstance(value, StoredTensor) for table in (root, *nested) for value in table.values()):
        raise UnreadableCheckpoint(
            "a bare state dict: weights without the description of their network; save the network itself, with "
            "torch.save({'model': model}, path)"
        )
    raise UnreadableCheckpoint("not a YOLOv5 checkpoint: it has no 'model' module")


def _unwrapped(model: PickledObject) -> PickledObject:
    """The network inside DataParallel and whatever else a training script has put around it."""
    inner = model
    for _ in range(_MAX_WRAPPERS):
        if isinstance(inner.state.get("yaml"), dict):
            return inner
        held = {**inner.state, **inner.children("_modules")}
        inside = next((held[name] for name in _WRAPPED if isinstance(held.get(name), PickledObject)), None)
        if not isinstance(inside, PickledObject):
            break
        inner = inside
    return model


def _find_names(root: object, models: Sequence[PickledObject]) -> tuple[str | None, ...] | None:
    """Names of the classes, from wherever a training script has left them."""
    found = [model.state.get("names") for model in models]
    if isinstance(root, dict):
        found.append(root.get("names"))
    found += [yaml.get("names") for model in models if isinstance(yaml := model.state.get("yaml"), dict)]
    return next((names for names in map(class_names, found) if names is not None), None)


def _walk(model: PickledObject) -> tuple[dict[str, StoredTensor], dict[str, PickledObject]]:
    """Parameters and buffers by path, and the activation of each module that has one."""
    tensors: dict[str, StoredTensor] = {}
    activations: dict[str, PickledObject] = {}
    pending = [("", model)]
    entries = 0
    while pending:
        path, module = pending.pop()
        weights = {**module.children("_parameters"), **module.children("_buffers")}
        children = module.children("_modules")
        entries += 1 + len(weights) + len(children)
        prefix = f"{path}." if path else ""
        longest = max(map(len, (*weights, *children)), default=0)
        if entries > _MAX_ENTRIES or len(prefix) + longest > _MAX_PATH:
            raise UnreadableCheckpoint(
                "the network has too many modules, names too long, or a module that contains itself"
            )
        for name, value in weights.items():
            if isinstance(value, StoredTensor):
                tensors[prefix + name] = value
        for name, child in children.items():
            if isinstance(child, PickledObject):
                pending.append((prefix + name, child))
                if name == "act":
                    activations[path] = child
    return tensors, activations
