"""A second implementation of docs/bitstream.md: slow, plain Python numbers and strings of bits.

Shares nothing with the codec package, so that an error must be made twice to go unseen. Python's floats are
binary64 and round after each operation, as the document demands.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Table:
    """One tensor's coefficients with its name and extents."""

    name: str
    extents: tuple[int, ...]
    values: list[float]


@dataclass
class Coded:
    """One tensor's levels with their range."""

    minimum: float
    maximum: float
    levels: list[int]


def f32(value: float) -> float:
    return struct.unpack(">f", struct.pack(">f", value))[0]


def order(value: float) -> tuple[float, float]:
    return value, math.copysign(1, value)


def scale(minimum: float, maximum: float, bits: int) -> float:
    return 0.0 if minimum == maximum else (2**bits - 1) / (maximum - minimum)


def quantize(values: Sequence[float], bits: int) -> Coded:
    minimum, maximum = min(values, key=order), max(values, key=order)
    factor = scale(minimum, maximum, bits)
    return Coded(minimum, maximum, [math.floor((x - minimum) * factor + 0.5) for x in values])


def value(coded: Coded, level: int, bits: int) -> float:
    step = (coded.maximum - coded.minimum) / (2**bits - 1)
    return f32(coded.minimum + level * step)


def dequantize(coded: Coded, bits: int) -> list[float]:
    return [value(coded, level, bits) for level in coded.levels]


def predicted(reference: Coded, current: Coded, bits: int) -> list[int]:
    factor = scale(current.minimum, current.maximum, bits)
    levels = []
    for level in reference.levels:
        nearest = math.floor((value(reference, level, bits) - current.minimum) * factor + 0.5)
        levels.append(min(max(nearest, 0), 2**bits - 1))
    return levels


def codewords(levels: Sequence[int], bits: int) -> list[str]:
    words, position = [], 0
    while position < len(levels):
        run = 0
        while position + run < len(levels) and levels[position + run] == 0 and run < 2**bits:
            run += 1
        words.append(f"1{run - 1:0{bits}b}" if run else f"0{levels[position]:0{bits}b}")
        position += max(run, 1)
    return words


def pack_bits(text: str) -> bytes:
    text += "0" * (-len(text) % 8)
    return bytes(int(text[start : start + 8], 2) for start in range(0, len(text), 8))


def section(coded: Coded, levels: Sequence[int], bits: int) -> bytes:
    return struct.pack(">ff", coded.minimum, coded.maximum) + pack_bits("".join(codewords(levels, bits)))


def packet(
    tensors: Sequence[Table],
    sections: Sequence[bytes],
    codec_id: int,
    parameters: bytes,
    stamp: tuple[int, int, int, int],
) -> bytes:
    """A keyframe's packet."""
    sequence, captured_ns, height, width = stamp
    table = b""
    for tensor, data in zip(tensors, sections, strict=True):
        name = tensor.name.encode("utf-8")
        table += bytes([len(name)]) + name + bytes([len(tensor.extents)])
        for extent in tensor.extents:
            table += extent.to_bytes(2, "big")
        table += len(data).to_bytes(4, "big")
    body = b"".join(sections)
    size = 29 + len(parameters) + len(table) + len(body) + 4
    head = (
        b"SPLC"
        + bytes([2, codec_id, 0, len(parameters)])
        + size.to_bytes(4, "big")
        + sequence.to_bytes(4, "big")
        + captured_ns.to_bytes(8, "big")
        + height.to_bytes(2, "big")
        + width.to_bytes(2, "big")
        + bytes([len(tensors)])
    )
    data = head + parameters + table + body
    return data + zlib.crc32(data).to_bytes(4, "big")


def raw_packet(tensors: Sequence[Table], stamp: tuple[int, int, int, int]) -> bytes:
    sections = [b"".join(struct.pack(">f", x) for x in tensor.values) for tensor in tensors]
    return packet(tensors, sections, 0, b"", stamp)


def rle_packet(tensors: Sequence[Table], bits: int, stamp: tuple[int, int, int, int]) -> bytes:
    coded = [quantize(tensor.values, bits) for tensor in tensors]
    sections = [section(each, each.levels, bits) for each in coded]
    return packet(tensors, sections, 1, bytes([bits]), stamp)


def difference_packet(
    tensors: Sequence[Table],
    before: Sequence[Table],
    bits: int,
    stamp: tuple[int, int, int, int],
    stamp_before: tuple[int, int, int, int],
) -> bytes:
    """The difference from `before`, whatever its size and however `before` was sent: levels are exact."""
    sections = []
    for tensor, reference in zip(tensors, before, strict=True):
        current = quantize(tensor.values, bits)
        prediction = predicted(quantize(reference.values, bits), current, bits)
        residual = [(a - b) % 2**bits for a, b in zip(current.levels, prediction, strict=True)]
        sections.append(section(current, residual, bits))
    sequence, captured_ns, *size = stamp
    start = 0x8000 + sequence % 2**14
    if size != list(stamp_before[2:]):
        start += 0x4000
    data = start.to_bytes(2, "big") + varint((captured_ns - stamp_before[1]) % 2**64)
    if start & 0x4000:
        data += size[0].to_bytes(2, "big") + size[1].to_bytes(2, "big")
    open_sizes = []
    for tensor, each in zip(tensors, sections, strict=True):
        n = math.prod(tensor.extents)
        if math.ceil(math.ceil(n / 2**bits) * (bits + 1) / 8) < math.ceil(n * (bits + 1) / 8):
            open_sizes.append(len(each))
    data += b"".join(varint(size) for size in open_sizes[:-1]) + b"".join(sections)
    description = bytes([2, 1, 1, bits, len(tensors)])
    for tensor in tensors:
        name = tensor.name.encode("utf-8")
        description += bytes([len(name)]) + name + bytes([len(tensor.extents)])
        for extent in tensor.extents:
            description += extent.to_bytes(2, "big")
    return data + zlib.crc32(description + data).to_bytes(4, "big")


def varint(value: int) -> bytes:
    digits = [value % 128]
    while value >= 128:
        value //= 128
        digits.append(value % 128 + 128)
    return bytes(reversed(digits))
