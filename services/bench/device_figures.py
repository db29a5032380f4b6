"""Whether a network computes on a device what it computes on the CPU, and how fast its tail is by batch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from codec.layout import FloatArray
from services.evaluation.agreement import PrecisionMeter, confident
from stream.letterbox import Letterbox
from stream.network.boxes import detect
from stream.network.engine import RunnableNetwork, Tail

SCORED = 0.001  # least confidence of the detections that agreement is measured on

Pictures = Sequence[NDArray[np.uint8]]
Features = Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class Correctness:
    """A network at one split point, against the reference on the same pictures."""

    network: str
    split: str
    head: float  # largest difference in a tensor that crosses, as a share of its largest value
    logits: float  # the same in the levels' logits, after both halves
    agreement: float | None  # AP50-95 against the reference's confident detections; None where it has none


@dataclass(frozen=True, slots=True)
class Speed:
    """A tail at one size of batch, from arrays in memory to arrays in memory."""

    network: str
    split: str
    batch: int
    fps: float


def check(
    name: str, network: RunnableNetwork, reference: RunnableNetwork, split: str, pictures: Pictures
) -> Correctness:
    """Compare head, tail and detections on pictures uint8 (H, W, 3), all of one size, which is the canvas."""
    canvas = pictures[0].shape[:2]
    letterbox = Letterbox(canvas, canvas)
    head, tail = network.head(split, canvas), network.tail(split)
    true_head, true_tail = reference.head(split, canvas), reference.tail(split)
    heads, logits, meter = [], [], PrecisionMeter()
    for picture in pictures:
        made, truth = head(picture), true_head(picture)
        heads += [_difference(made[name], truth[name]) for name in truth]
        (levels,), (true_levels,) = tail([made]), true_tail([truth])
        logits += [_difference(*pair) for pair in zip(levels, true_levels, strict=True)]
        meter.add(
            detect(levels, network.levels, letterbox, conf=SCORED),
            confident(detect(true_levels, reference.levels, letterbox, conf=SCORED)),
        )
    precision = meter.over_objects()
    return Correctness(
        name,
        split,
        float(f"{max(heads):.2g}"),
        float(f"{max(logits):.2g}"),
        round(precision.ap, 4) if precision else None,
    )


def measure(name: str, tail: Tail, frames: Sequence[Features], batch: int, seconds: float) -> Speed:
    """Frames a second of a tail that gets so many of these frames at a time, for so long after a call to warm up."""
    taken = list(islice(cycle(frames), batch))
    tail(taken)
    calls, started_s = 0, time.perf_counter()
    while (passed_s := time.perf_counter() - started_s) < seconds or not calls:
        tail(taken)
        calls += 1
    return Speed(name, tail.split, batch, round(calls * batch / passed_s, 1))


def _difference(made: FloatArray, truth: FloatArray) -> float:
    return float(np.abs(made - truth).max() / np.abs(truth).max())
