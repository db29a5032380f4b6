"""How long the zero-run code is: codewords of bits + 1 bits (paper, Sec. VI), for levels of 2 to 8 bits."""

from __future__ import annotations

MIN_BITS, MAX_BITS = 2, 8


def coded_bounds(size: int, bits: int) -> tuple[int, int]:
    """Least and most bytes that code `size` levels: runs only, and no run at all."""
    return codeword_bytes(-(-size // 2**bits), bits), codeword_bytes(size, bits)


def scratch_bytes(size: int, bits: int) -> int:
    """Bytes that the encoding kernels may write: the last group of eight codewords is written whole."""
    return coded_bounds(size, bits)[1] + bits + 1


def codeword_bytes(codewords: int, bits: int) -> int:
    """Bytes of so many codewords."""
    return (codewords * (bits + 1) + 7) // 8
