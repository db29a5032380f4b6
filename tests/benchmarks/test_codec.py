"""The run-length codec against general-purpose compression of the same levels: `make bench`.

As in the paper (Sec. VI, Fig. 7): quantize and compress a tensor, one byte per level where the compressor is
zlib or zstd. The codec's time has its packet and checksum in it, the others' has neither. One thread each.
The tables give, in brackets, how many times longer a contestant takes than the fastest of its group.
"""

from __future__ import annotations

import zlib
from functools import cache
from statistics import median

import numpy as np
import pytest
import zstandard

from codec.extremes import range_of
from codec.layout import TensorSpec
from codec.packet import Stamp
from codec.rle import kernels
from codec.rle.quantize import level_values, levels_per_unit
from codec.spec import parse_codec
from codec.value_range import ValueRange
from tests.benchmarks.timing import ROUNDS, show, timed

# YOLOv5m at 480x640, split 4.m, and the paper's ResNet-50 after its 4th layer.
SHAPES = [(96, 60, 80), (64, 56, 56)]
BITS = [2, 3, 4, 8]


@cache
def features(shape):
    """Coefficients as a SiLU layer leaves them: smooth in space, most of them near its minimum."""
    rng = np.random.default_rng(5)
    channels, height, width = shape
    coarse = rng.normal(0, 1.5, (channels, -(-height // 4), -(-width // 4)))
    x = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width] + rng.normal(-1.5, 0.7, shape)
    return (x / (1 + np.exp(-x))).astype(np.float32)


class Rle:
    """The codec from tensor to packet and back."""

    def __init__(self, shape, bits):
        layout = (TensorSpec("4.m", shape),)
        spec = parse_codec(f"rle:bits={bits}")
        self._encoder, self._decoder = spec.encoder(layout), spec.decoder(layout)

    def encode(self, tensor):
        return self._encoder.encode({"4.m": tensor}, Stamp(0, 0)).data

    def decode(self, data):
        return self._decoder.decode(data).tensors["4.m"]


class General:
    """The codec's quantizer, then a general-purpose compressor of one byte per level."""

    def __init__(self, shape, bits, compress, decompress):
        self._shape, self._bits = shape, bits
        self._compress, self._decompress = compress, decompress
        self._levels = np.empty(np.prod(shape), np.uint8)

    def encode(self, tensor):
        flat = tensor.reshape(-1)
        value_range = range_of(flat, "4.m")
        kernels.quantize(flat, value_range.minimum, levels_per_unit(value_range, self._bits), self._levels)
        return value_range.pack() + self._compress(self._levels)

    def decode(self, data):
        table = level_values(ValueRange.parse(memoryview(data)), self._bits)
        levels = np.frombuffer(self._decompress(data[8:]), np.uint8)
        tensor = np.empty(self._shape, np.float32)
        kernels.dequantize(levels, table, tensor.reshape(-1))
        return tensor


CONTESTANTS = {
    "rle": Rle,
    "zlib": lambda *what: General(*what, lambda levels: zlib.compress(levels, level=6), zlib.decompress),
    "zstd": lambda *what: General(
        *what, zstandard.ZstdCompressor(level=3).compress, zstandard.ZstdDecompressor().decompress
    ),
}

each_tensor = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
each_bits = pytest.mark.parametrize("bits", BITS, ids=lambda bits: f"{bits} bits")
each_contestant = pytest.mark.parametrize("name", CONTESTANTS)


@each_tensor
@each_bits
@each_contestant
def test_encode(benchmark, shape, bits, name):
    contestant = CONTESTANTS[name](shape, bits)
    benchmark.group = f"encode {'x'.join(map(str, shape))}, {bits} bits"
    data = benchmark.pedantic(contestant.encode, (features(shape),), rounds=ROUNDS, warmup_rounds=2)
    benchmark.extra_info["bits_per_coefficient"] = 8 * len(data) / features(shape).size


@each_tensor
@each_bits
@each_contestant
def test_decode(benchmark, shape, bits, name):
    contestant = CONTESTANTS[name](shape, bits)
    data = contestant.encode(features(shape))
    benchmark.group = f"decode {'x'.join(map(str, shape))}, {bits} bits"
    tensor = benchmark.pedantic(contestant.decode, (data,), rounds=ROUNDS, warmup_rounds=2)
    assert np.array_equal(tensor, Rle(shape, bits).decode(Rle(shape, bits).encode(features(shape))))


@each_tensor
@each_bits
def test_ratios(benchmark, capsys, shape, bits):
    """How many times longer than the codec the others take; in turns, so that the machine's pace meets all alike."""
    contestants = {name: make(shape, bits) for name, make in CONTESTANTS.items()}
    tensor = features(shape)
    coded = {name: contestant.encode(tensor) for name, contestant in contestants.items()}
    times_s = {(stage, name): [] for stage in ("encode", "decode") for name in contestants}

    def take_turns():
        for name, contestant in contestants.items():
            times_s["encode", name].append(timed(contestant.encode, tensor))
            times_s["decode", name].append(timed(contestant.decode, coded[name]))

    benchmark.group = "in turns, all contestants"
    benchmark.pedantic(take_turns, rounds=ROUNDS, warmup_rounds=2)
    ratios = {
        f"{stage} {name}": median(times) / median(times_s[stage, "rle"])
        for (stage, name), times in times_s.items()
        if name != "rle"
    }
    benchmark.extra_info.update(ratios)
    show(capsys, f"{'x'.join(map(str, shape))}, {bits} bits", ratios, "{:.1f} times rle's")
