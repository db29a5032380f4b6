"""The tensors that cross the split: their names, order and shapes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.errors import BadLayout

FloatArray: TypeAlias = NDArray[np.float32]

MAX_NAME_BYTES = 64
MAX_AXES = 8
MAX_EXTENT = 2**16 - 1
MAX_TENSORS = 2**8 - 1

# Names from a peer end up in log lines and on terminals; half a surrogate pair is no UTF-8.
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One float32 tensor that crosses the split, without the batch axis: usually (C, H, W).

    The name is 1 to 64 bytes of UTF-8 without control characters; 1 to 8 axes of 1 to 65535 each.
    Raises BadLayout otherwise.
    """

    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if _NOT_IN_NAMES.search(self.name) or not 1 <= len(self.name.encode()) <= MAX_NAME_BYTES:
            raise BadLayout(
                f"tensor name {self.name!r} is not 1 to {MAX_NAME_BYTES} bytes of UTF-8 without control characters"
            )
        if not 1 <= len(self.shape) <= MAX_AXES:
            raise BadLayout(f"tensor {self.name!r} has {len(self.shape)} axes, not 1 to {MAX_AXES}")
        if not all(1 <= extent <= MAX_EXTENT for extent in self.shape):
            raise BadLayout(
                f"tensor {self.name!r} of shape {self.shape} has an axis beyond 1 to {MAX_EXTENT}"
            )

    def __str__(self) -> str:
        return f"{self.name} {'x'.join(map(str, self.shape))}"

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return prod(self.shape)

    @property
    def raw_bytes(self) -> int:
        """Size as the 4-byte floats that the paper counts from (Tables I and II)."""
        return 4 * self.size


Layout: TypeAlias = tuple[TensorSpec, ...]


def raw_bytes(layout: Layout) -> int:
    """Size in bytes of all tensors of a layout as float32."""
    return sum(tensor.raw_bytes for tensor in layout)
