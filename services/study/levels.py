"""Levels of quantized tensors, as the paper's scheme makes them, and the bits and bytes that they need."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.extremes import range_of
from codec.rle import kernels
from codec.rle.codewords import scratch_bytes
from codec.rle.kernels import Levels
from codec.rle.quantize import levels_per_unit
from codec.value_range import ValueRange
from services.study.subject import Tensors

BITS = range(2, 9)  # of a level, as far as the paper varies them
QUICK_BITS = (3, 4)
FLOAT = 32  # bits of a coefficient that is sent as it is
ROWS = (FLOAT, *reversed(BITS))  # of tables: from what loses nothing to what loses most
RANGE_BYTES = ValueRange.WIRE.size  # that travel with a tensor's levels


def bits_label(bits: int) -> str:
    """How a table names the quantization."""
    return "none" if bits == FLOAT else str(bits)


def levels_of(tensors: Tensors, bits: int) -> dict[str, Levels]:
    """Levels uint8 (C, H, W) below 2**bits, linear between each tensor's least and greatest coefficient."""
    levels = {}
    for name, tensor in tensors.items():
        coefficients = tensor.reshape(-1)
        value_range = range_of(coefficients, name)
        flat = np.empty(coefficients.size, np.uint8)
        kernels.quantize(coefficients, value_range.minimum, levels_per_unit(value_range, bits), flat)
        levels[name] = flat.reshape(tensor.shape)
    return levels


def entropy(counts: NDArray[Any]) -> float:
    """Order-0 entropy, in bits a symbol, of symbols that occur so often."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def level_entropy(levels: Levels, bits: int) -> float:
    """Order-0 entropy of levels or of their differences, in bits each."""
    return entropy(np.bincount(levels.reshape(-1), minlength=2**bits))


def zero_run_bytes(levels: Levels, bits: int) -> int:
    """Bytes of the paper's zero-run code of levels below 2**bits, without any header."""
    out = np.empty(scratch_bytes(levels.size, bits), np.uint8)
    return int(
        kernels.encode_levels(np.ascontiguousarray(levels.reshape(-1)), bits, out, kernels.workspace()[1])
    )
