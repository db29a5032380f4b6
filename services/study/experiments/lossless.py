"""Figure 7: the paper's scheme against general compressors, in size and in time.

Section VI of the paper compares with zlib. zstd and lz4, which were made for speed, are measured as well.
"""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lz4.frame
import numpy as np
import zstandard

from codec.packet import Stamp
from codec.rle import kernels
from codec.rle.codec import Rle
from codec.rle.kernels import Levels
from codec.rle.quantize import levels_per_unit
from codec.value_range import ValueRange
from services.study.draw import label, legend, looks, panels, stamp
from services.study.experiment import Experiment
from services.study.experiments.quantization import BITS, FLOAT
from services.study.record import Record, by_subject
from services.study.section import KB, Claim, Drawing, Section, Table, percent
from services.study.stopwatch import Stopwatch
from services.study.study import Study
from services.study.subject import Sample, Tensors

RLE = "rle"
_RANGE_BYTES = ValueRange.WIRE.size


@dataclass(frozen=True, slots=True)
class Compressor:
    """A general lossless compressor of bytes, on one thread."""

    name: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]


COMPRESSORS = (
    Compressor("zlib", lambda data: zlib.compress(data, 6), zlib.decompress),
    Compressor(
        "zstd",
        lambda data: zstandard.ZstdCompressor(level=3).compress(data),
        lambda data: zstandard.ZstdDecompressor().decompress(data),
    ),
    Compressor("lz4", lz4.frame.compress, lz4.frame.decompress),
)


def levels_of(coefficients: Any, bits: int, name: str) -> tuple[Levels, ValueRange]:
    """Levels uint8 of coefficients float32 (n,), quantized linearly between their least and greatest."""
    value_range = ValueRange.of(coefficients, name)
    levels = np.empty(coefficients.size, np.uint8)
    kernels.quantize(coefficients, value_range.minimum, levels_per_unit(value_range, bits), levels)
    return levels, value_range


def _quantized(tensors: Tensors, bits: int) -> bytes:
    """The levels of all tensors, a byte each."""
    return b"".join(
        levels_of(tensor.reshape(-1), bits, name)[0].tobytes() for name, tensor in tensors.items()
    )


def _measure(study: Study) -> None:
    for subject in study.subjects:
        with study.refusing():
            source = study.stills(subject)
            bits_asked = (3, 4, 8) if study.quick else BITS
            asked: list[dict[str, Any]] = [
                {"coder": coder.name, "bits": bits} for bits in (FLOAT, *bits_asked) for coder in COMPRESSORS
            ]
            asked += [{"coder": RLE, "bits": bits} for bits in bits_asked]
            missing = study.missing("figure7", subject, source, asked)
            points = {(one["coder"], one["bits"]) for one in missing}
            if not points:
                continue
            sizes: dict[tuple[str, int], list[int]] = {point: [] for point in points}
            raw: list[int] = []  # pictures differ in shape
            watches = {point: Stopwatch() for point in points}
            # Each picture takes a while at all settings, and medians settle soon.
            for number, sample in enumerate(study.samples(subject, source, 4 if study.quick else 16)):
                raw.append(sum(tensor.nbytes for tensor in sample.tensors.values()))
                for coder, bits in sorted(points):
                    # The first picture warms up caches and allocators, and its times do not count.
                    watch = watches[coder, bits] if number else Stopwatch()
                    size = _rle(sample, bits, watch) if coder == RLE else _general(sample, coder, bits, watch)
                    sizes[coder, bits].append(size)
            for one in missing:
                point = one["coder"], one["bits"]
                values = {
                    "bytes": round(statistics.fmean(sizes[point]), 1),
                    "raw_bytes": round(statistics.fmean(raw), 1),
                    "pictures": len(raw),
                }
                study.write(
                    "figure7", subject, source, one, values=values, times_ms=watches[point].medians_ms()
                )


def _rle(sample: Sample, bits: int, watch: Stopwatch) -> int:
    encoder, decoder = Rle(bits).encoder(sample.layout), Rle(bits).decoder(sample.layout)
    packet = watch.run("encode", lambda: encoder.encode(sample.tensors, Stamp(0, 0, 1, 1)))
    watch.run("decode", lambda: decoder.decode(packet.data))
    return len(packet.data)


def _general(sample: Sample, name: str, bits: int, watch: Stopwatch) -> int:
    coder = next(one for one in COMPRESSORS if one.name == name)
    if bits == FLOAT:
        plain = b"".join(tensor.tobytes() for tensor in sample.tensors.values())
        packed = watch.run("encode", lambda: coder.compress(plain))
        ranges = 0
    else:
        # As the paper, quantization counts: it is part of what has to be done before anything can be sent.
        packed = watch.run("encode", lambda: coder.compress(_quantized(sample.tensors, bits)))
        plain = _quantized(sample.tensors, bits)
        ranges = _RANGE_BYTES * len(sample.tensors)
    if watch.run("decode", lambda: coder.decompress(packed)) != plain:
        raise AssertionError(f"{name} does not give back what it was given")
    return len(packed) + ranges


def _present(records: Sequence[Record]) -> Section:
    groups = by_subject(records)
    figure, axes = panels(2 * len(groups), width=4.2, columns=2)
    coders = dict.fromkeys(record.settings["coder"] for record in records)
    style = looks([RLE, *sorted(coders)])
    rows, claims = [], []
    for number, group in enumerate(groups):
        found = {(one.settings["coder"], one.settings["bits"]): one for one in group}
        size_axis, time_axis = axes[2 * number], axes[2 * number + 1]
        for coder in style:
            bits = [b for b in BITS if (coder, b) in found]
            size_axis.plot(
                bits, [found[coder, b].values["bytes"] / KB for b in bits], label=coder, **style[coder]
            )
            both = [b for b in bits if _encode(found, coder, b) and _encode(found, RLE, b)]
            ratios = [_encode(found, coder, b) / _encode(found, RLE, b) for b in both]
            time_axis.plot(both, ratios, label=coder, **style[coder])
        size_axis.set(
            title=label(group[0]), xlabel="bits per coefficient", ylabel="kB a picture", ylim=(0, None)
        )
        time_axis.set(
            title=label(group[0]),
            xlabel="bits per coefficient",
            ylabel="time to encode, rle = 1",
            ylim=(0, None),
        )
        legend(size_axis)
        legend(time_axis)
        rows += _rows(label(group[0]), found, list(style))
        claims += _claims(label(group[0]), found)
    stamp(figure, records)
    return Section(
        title="Against zlib, zstd and lz4",
        paper="Figure 7",
        method=(
            "General compressors of the floats, and of the quantized levels, a byte each, with the ranges; zlib at "
            "level 6, zstd at 3, lz4 at its default. The time of all on levels includes quantization. One thread, "
            "medians over pictures of one run, in which the coders take turns; times are of this machine, and shown as "
            "ratios to the paper's scheme."
        ),
        drawings=[Drawing("figure7", figure, "Size (left) and time to encode as a ratio to rle (right).")],
        tables=[
            Table(
                "Size and time",
                [
                    "network",
                    "bits",
                    "coder",
                    "kB",
                    "of the floats",
                    "encode, rle = 1",
                    "encode ms",
                    "decode ms",
                ],
                rows,
                "kB: 1024 bytes.",
            )
        ],
        claims=claims,
    )


def _encode(found: Mapping[tuple[str, int], Record], coder: str, bits: int) -> float:
    record = found.get((coder, bits))
    return record.times_ms.get("encode", 0.0) if record else 0.0


def _rows(name: str, found: Mapping[tuple[str, int], Record], coders: Sequence[str]) -> list[list[str]]:
    rows = []
    for bits in (FLOAT, *reversed(BITS)):
        for coder in coders:
            if (coder, bits) in found:
                one = found[coder, bits]
                ours, theirs = _encode(found, RLE, bits), _encode(found, coder, bits)
                rows.append(
                    [
                        name,
                        "none" if bits == FLOAT else str(bits),
                        coder,
                        f"{one.values['bytes'] / KB:.1f}",
                        percent(one.values["bytes"] / one.values["raw_bytes"]),
                        f"{theirs / ours:.2f}" if ours and theirs else "",
                        *(
                            f"{one.times_ms[stage]:.2f}" if stage in one.times_ms else ""
                            for stage in ("encode", "decode")
                        ),
                    ]
                )
    return rows


def _claims(name: str, found: Mapping[tuple[str, int], Record]) -> list[Claim]:
    claims = []
    if ("zlib", FLOAT) in found:
        one = found["zlib", FLOAT]
        kept = one.values["bytes"] / one.values["raw_bytes"]
        verdict = "agrees" if abs(kept - 0.6) <= 0.1 else "does not agree"
        claims.append(
            Claim(
                "zlib keeps about 60 % of the original tensor, and takes 25.2 ms for ResNet-50's layer 4 (section VI).",
                f"{name}: {percent(kept)} kept, {one.times_ms.get('encode', 0):.0f} ms on this machine.",
                f"The share {verdict} (within 10 points).",
            )
        )
    ratios = {
        bits: found["zlib", bits].values["bytes"] / found[RLE, bits].values["bytes"]
        for bits in BITS
        if {("zlib", bits), (RLE, bits)} <= found.keys()
    }
    if ratios:
        larger = [bits for bits, ratio in ratios.items() if ratio > 1]
        expected = [bits for bits in ratios if bits >= 4]
        told = ", ".join(f"{ratio:.2f} at {bits}" for bits, ratio in ratios.items())
        claims.append(
            Claim(
                "Run-length coding makes smaller data than zlib on the levels, but for less than 4 bits (section VI).",
                f"{name}: bytes of zlib over the paper's scheme, by bits: {told}.",
                "This agrees." if larger == expected else
                f"This does not agree: zlib is larger at {', '.join(map(str, larger)) or 'no number of'} bits.",
            )
        )  # fmt: skip
    times = [
        _encode(found, "zlib", bits) / _encode(found, RLE, bits)
        for bits in ratios
        if _encode(found, RLE, bits) and _encode(found, "zlib", bits)
    ]
    if times:
        low, high = min(times), max(times)
        within = 2 <= statistics.median(times) <= 3
        claims.append(
            Claim(
                "zlib needs between two and three times the time of quantization and run-length coding (section VI).",
                f"{name}: {low:.1f} to {high:.1f} times.",
                "This agrees (the median)." if within else
                f"Here it is {'more' if statistics.median(times) > 3 else 'less'}; the paper's own code is not ours.",
            )
        )  # fmt: skip
    return claims


figure7 = Experiment("figure7", "size and time against zlib, zstd and lz4", _measure, _present)
