"""Reads a YOLOv5 checkpoint (.pt) as data: its pickle is interpreted, never executed.

A checkpoint is a zip file. `data.pkl` describes the objects as a pickle program, `data/KEY` holds the bytes of
each tensor storage. Unpickling such a program imports and calls whatever it names, so a checkpoint from elsewhere
could run anything. Here the program is followed by a small interpreter, whose objects are inert.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from stream.errors import CheckpointError, UnreadableCheckpoint
from stream.network.checkpoint_archive import CheckpointArchive, open_archive
from stream.network.pickle_reader import PickledObject, PickleReader, StoredTensor

_MAX_ENTRIES = 20_000  # modules and tensors; a shared one may stand for a tree of any size
_MAX_PATH = 200  # characters of a module's or tensor's path; a module may even contain itself
_MAX_NAME = 200  # characters of one of the network's classes, and of an error that is passed on
_MAX_CLASSES = 4096


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a YOLOv5 checkpoint holds, before anything is built from it."""

    yaml: Mapping[str, object]  # untrusted: the network's description as its author wrote it
    names: tuple[str, ...] | None  # of the classes
    state: dict[str, torch.Tensor]  # parameters and buffers as stored, keyed as by torch's state_dict
    activations: dict[str, PickledObject]  # of each convolution, by the path of its module


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights and description in a `.pt` file, read without running any of it.

    Prefers the averaged weights (`ema`) where the file has both, as the official tools do.
    Raises UnreadableCheckpoint, UnsafeCheckpoint.
    """
    with _translated(path), path.open("rb") as file, open_archive(file) as archive:
        contents = CheckpointArchive(archive)
        model = _find_model(PickleReader(contents.storage).read(contents.pickle()))
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
        return Checkpoint(yaml, _class_names(model.state.get("names")), state, activations)


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
    except zipfile.BadZipFile as error:
        raise UnreadableCheckpoint(
            f"{path} is not a whole PyTorch zip checkpoint ({error}); fetch it again, "
            "or re-save a file from before PyTorch 1.6 with a newer one"
        ) from error
    except Exception as error:  # damaged bytes make zipfile and pickletools raise a dozen unrelated types
        shown = repr(error)[:_MAX_NAME]
        raise UnreadableCheckpoint(f"{path} is damaged ({shown}); fetch it again") from error


def _find_model(root: object) -> PickledObject:
    if not isinstance(root, dict):
        raise UnreadableCheckpoint("not a YOLOv5 checkpoint: it should be a dictionary with a 'model'")
    for key in ("ema", "model"):
        match root.get(key):
            case PickledObject() as model:
                return model
    raise UnreadableCheckpoint(
        "not a YOLOv5 checkpoint: it has no 'model' module (a bare state dict lacks the network's description)"
    )


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


def _class_names(names: object) -> tuple[str, ...] | None:
    """Class names in the order of their indices, from a list or from a dictionary by index."""
    if isinstance(names, dict):
        names = [names[key] for key in sorted(key for key in names if isinstance(key, int))]
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        return None
    # A text or a number of any length may stand in every place of the list.
    if len(names) > _MAX_CLASSES or any(
        len(name) > _MAX_NAME if isinstance(name, str) else name.bit_length() > 64 for name in names
    ):
        raise UnreadableCheckpoint("the network has too many classes, or names too long")
    return tuple(str(name) for name in names)
