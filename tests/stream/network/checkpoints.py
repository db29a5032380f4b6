"""Checkpoints written for tests: small ones, damaged ones, and programs that no pickler would write."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stream.network.checkpoint import Checkpoint, read_checkpoint
from tests.stream.network import legacy


def in_torch(values: NDArray[np.generic]) -> torch.Tensor:
    """A checkpoint's tensor as torch has it; bfloat16, which torch takes from no array, as float32."""
    return torch.tensor(values.astype(np.float32) if values.dtype == ml_dtypes.bfloat16 else values)


def small_description() -> dict:
    """A network of the right shape and few weights, for tests that read it many times."""
    return {**legacy.description("n", classes=2), "width_multiple": 0.01}


def write(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None, **records: bytes) -> Path:
    """A zip file with the members of a checkpoint."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
        for name, data in records.items():
            archive.writestr(f"archive/{name}", data)
    return path


class Call:
    """Pickles as a call of any function, which an ordinary loader would make."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Storage:
    """Stands for a tensor storage in a handmade pickle."""

    def __init__(self, *reference) -> None:
        self.reference = reference


def pickled_tensors(*tensors: tuple, key: str = "0", elements: object = 4) -> bytes:
    """A checkpoint's pickle whose model has buffers made by `_rebuild_tensor_v2(storage, *tensor)`."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return obj.reference if isinstance(obj, Storage) else None

    module = nn.Module()
    module.yaml = {"nc": 1}
    storage = Storage("storage", torch.FloatStorage, key, "cpu", elements)
    for index, (offset, shape, stride) in enumerate(tensors):
        call = Call(
            torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, collections.OrderedDict()
        )
        module._buffers[f"b{index}"] = call
    stream = io.BytesIO()
    Pickler(stream, 2).dump({"model": module})
    return stream.getvalue()


def read_tensors(path: Path, *tensors: tuple, size: int = 16, **declared) -> Checkpoint:
    return read_checkpoint(write(path, pickled_tensors(*tensors, **declared), {"0": bytes(size)}))


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def keyed(count: int, key) -> bytes:
    """A dictionary of None by `key(0)`, `key(1)`, ..."""
    return b"}(" + b"".join(key(index) + b"N" for index in range(count)) + b"u"


MODULE = b"cmodels.common\nConv\n)R"
