"""Figure 7: the paper's scheme against general compressors, in size and in time.

Section VI of the paper compares with zlib. zstd and lz4, which were made for speed, are measured as well.
"""

from __future__ import annotations

import statistics
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lz4.frame
import zstandard

from codec.packet import Stamp
from codec.rle.codec import Rle
from services.evaluation.plot import looks
from services.study.draw import label, legend, panels, stamp
from services.study.levels import BITS, FLOAT, RANGE_BYTES, ROWS, bits_label, levels_of
from services.study.record import StudyRecord, by_subject
from services.study.section import KIB, Claim, Drawing, Section, Table, kibibytes, percent
from services.study.study import Experiment, Study
from services.study.subject import SplitSample, Subject, Tensors
from stream.latency import StageClock, StageDurations

RLE = "rle"
STAGES = ("encode", "decode")
SETUP = "setup"  # what is not timed


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


def _quantized(tensors: Tensors, bits: int) -> bytes:
    """The levels of all tensors, a byte each."""
    return b"".join(levels.tobytes() for levels in levels_of(tensors, bits).values())


def _measure(study: Study) -> None:
    study.for_each_subject(_measure_subject)


def _measure_subject(study: Study, subject: Subject) -> None:
    pictures = study.stills(subject)
    all_bits = (3, 4, 8) if study.quick else BITS
    points: list[dict[str, Any]] = [
        {"coder": coder.name, "bits": bits} for bits in (FLOAT, *all_bits) for coder in COMPRESSORS
    ]
    points += [{"coder": RLE, "bits": bits} for bits in all_bits]
    missing = study.missing("figure7", subject, pictures, points)
    if not missing:
        return
    sizes: dict[tuple[str, int], list[int]] = {(point["coder"], point["bits"]): [] for point in missing}
    durations = {point: StageDurations() for point in sizes}
    raw: list[int] = []  # pictures differ in shape
    # Each picture takes a while at all settings, and medians settle soon.
    for number, sample in enumerate(study.samples(subject, pictures, 4 if study.quick else 16)):
        raw.append(sum(tensor.nbytes for tensor in sample.tensors.values()))
        for coder, bits in sorted(sizes):
            clock = StageClock(time.monotonic_ns())
            size = _rle(sample, bits, clock) if coder == RLE else _general(sample, coder, bits, clock)
            sizes[coder, bits].append(size)
            if number:  # the first picture warms up caches and allocators
                durations[coder, bits].add(clock.durations_ns)
    for settings in missing:
        point = settings["coder"], settings["bits"]
        values = {
            "bytes": round(statistics.fmean(sizes[point]), 1),
            "raw_bytes": round(statistics.fmean(raw), 1),
            "pictures": len(raw),
        }
        times_ms = {
            stage: round(median, 4)
            for stage, median in durations[point].medians_ms().items()
            if stage in STAGES
        }
        study.write("figure7", subject, pictures, settings, values=values, times_ms=times_ms)


def _rle(sample: SplitSample, bits: int, clock: StageClock) -> int:
    encoder, decoder = Rle(bits).encoder(sample.layout), Rle(bits).decoder(sample.layout)
    clock.lap(SETUP, time.monotonic_ns())
    packet = encoder.encode(sample.tensors, Stamp(0, 0, 1, 1))
    clock.lap("encode", time.monotonic_ns())
    decoder.decode(packet.data)
    clock.lap("decode", time.monotonic_ns())
    return len(packet.data)


def _general(sample: SplitSample, name: str, bits: int, clock: StageClock) -> int:
    coder = next(compressor for compressor in COMPRESSORS if compressor.name == name)
    if bits == FLOAT:
        plain = b"".join(tensor.tobytes() for tensor in sample.tensors.values())
        ranges = 0
        clock.lap(SETUP, time.monotonic_ns())
    else:
        # As in the paper, quantization counts: it is part of what has to be done before anything can be sent.
        plain = _quantized(sample.tensors, bits)
        ranges = RANGE_BYTES * len(sample.tensors)
    packed = coder.compress(plain)
    clock.lap("encode", time.monotonic_ns())
    unpacked = coder.decompress(packed)
    clock.lap("decode", time.monotonic_ns())
    if unpacked != plain:
        raise AssertionError(f"{name} does not give back what it was given")
    return len(packed) + ranges


class _Coders:
    """The records of one network, by coder and bits."""

    def __init__(self, group: Sequence[StudyRecord]) -> None:
        self.name = label(group[0])
        self._points = {(record.settings["coder"], record.settings["bits"]): record for record in group}

    def sizes(self, coder: str) -> dict[int, float]:
        """KiB by bits, of levels."""
        return {
            bits: self._points[coder, bits].values["bytes"] / KIB
            for bits in BITS
            if (coder, bits) in self._points
        }

    def time_ratio(self, coder: str, bits: int) -> float | None:
        """Time to encode over that of the paper's scheme, where both were measured."""
        ours, theirs = self._encode_ms(RLE, bits), self._encode_ms(coder, bits)
        return theirs / ours if ours and theirs else None

    def time_ratios(self, coder: str) -> dict[int, float]:
        """The same by bits."""
        ratios = {bits: self.time_ratio(coder, bits) for bits in BITS}
        return {bits: ratio for bits, ratio in ratios.items() if ratio is not None}

    def _encode_ms(self, coder: str, bits: int) -> float:
        record = self._points.get((coder, bits))
        return record.times_ms.get("encode", 0.0) if record else 0.0

    def rows(self, coders: Sequence[str]) -> list[list[str]]:
        rows = []
        for bits in ROWS:
            for coder in coders:
                if record := self._points.get((coder, bits)):
                    ratio = self.time_ratio(coder, bits)
                    size, times = record.values["bytes"], record.times_ms
                    rows.append(
                        [
                            self.name,
                            bits_label(bits),
                            coder,
                            kibibytes(size),
                            percent(size / record.values["raw_bytes"]),
                            "" if ratio is None else f"{ratio:.2f}",
                            *(f"{times[stage]:.2f}" if stage in times else "" for stage in STAGES),
                        ]
                    )
        return rows

    def claims(self) -> list[Claim]:
        return [*self._floats_claim(), *self._size_claim(), *self._time_claim()]

    def _floats_claim(self) -> list[Claim]:
        if ("zlib", FLOAT) not in self._points:
            return []
        record = self._points["zlib", FLOAT]
        kept = record.values["bytes"] / record.values["raw_bytes"]
        verdict = "agrees" if abs(kept - 0.6) <= 0.1 else "does not agree"
        return [
            Claim(
                "zlib keeps about 60 % of the original tensor, and takes 25.2 ms for ResNet-50's layer 4 (section VI).",
                f"{self.name}: {percent(kept)} kept, {record.times_ms.get('encode', 0):.0f} ms on this machine.",
                f"The share {verdict} (within 10 points).",
            )
        ]

    def _size_claim(self) -> list[Claim]:
        ours, theirs = self.sizes(RLE), self.sizes("zlib")
        ratios = {bits: theirs[bits] / ours[bits] for bits in BITS if {bits} <= ours.keys() & theirs.keys()}
        if not ratios:
            return []
        larger = [bits for bits, ratio in ratios.items() if ratio > 1]
        expected = [bits for bits in ratios if bits >= 4]
        sizes = ", ".join(f"{ratio:.2f} at {bits}" for bits, ratio in ratios.items())
        return [
            Claim(
                "Run-length coding makes smaller data than zlib on the levels, but for less than 4 bits (section VI).",
                f"{self.name}: bytes of zlib over the paper's scheme, by bits: {sizes}.",
                "This agrees."
                if larger == expected
                else f"This does not agree: zlib is larger at {', '.join(map(str, larger)) or 'no number of'} bits.",
            )
        ]

    def _time_claim(self) -> list[Claim]:
        ratios = self.time_ratios("zlib").values()
        if not ratios:
            return []
        median = statistics.median(ratios)
        return [
            Claim(
                "zlib needs between two and three times the time of quantization and run-length coding (section VI).",
                f"{self.name}: {min(ratios):.1f} to {max(ratios):.1f} times.",
                "This agrees (the median)."
                if 2 <= median <= 3
                else f"Here it is {'more' if median > 3 else 'less'}; the paper's own code is not ours.",
            )
        ]


def _present(records: Sequence[StudyRecord]) -> Section:
    networks = [_Coders(group) for group in by_subject(records)]
    figure, axes = panels(2 * len(networks), width=4.2, columns=2)
    style = looks([RLE, *sorted({record.settings["coder"] for record in records})])
    for number, network in enumerate(networks):
        sizes, times = axes[2 * number : 2 * number + 2]
        for coder, look in style.items():
            for axis, curve in ((sizes, network.sizes(coder)), (times, network.time_ratios(coder))):
                axis.plot(list(curve), list(curve.values()), label=coder, **look)
        sizes.set(ylabel="KiB a picture")
        times.set(ylabel="time to encode, rle = 1")
        for axis in (sizes, times):
            axis.set(title=network.name, xlabel="bits per coefficient", ylim=(0, None))
            legend(axis)
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
                    "network", "bits", "coder", "KiB", "of the floats", "encode, rle = 1", "encode ms", "decode ms",
                ],
                [row for network in networks for row in network.rows(list(style))],
                "KiB: 1024 bytes.",
            )
        ],
        claims=[claim for network in networks for claim in network.claims()],
    )  # fmt: skip


figure7 = Experiment("figure7", "size and time against zlib, zstd and lz4", _measure, _present)
