"""Whether this machine computes a camera's frames as fast as they come: the head, and the encoder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, cycle

from codec.packet import Stamp
from services.camera.pipeline import FeaturePipeline
from services.camera.settings import CameraSettings
from services.doctor.finding import Finding, doubtful, fine, wrong
from services.doctor.frame_cost import COMFORT, FrameCost, FrameTimer
from stream.canvas import STRIDE, parse_size
from stream.frame import Frame

_ANY_BYTES = 2**40
_LEAST_SIDE = 2 * STRIDE


async def measure_camera(pipeline: FeaturePipeline, frames: Sequence[Frame]) -> FrameCost:
    """What head and encoder take of frames that came one after another, all of the pipeline's canvas."""
    step = pipeline.steps.finest if pipeline.steps else None
    await pipeline.warm_up()
    timer = FrameTimer()
    for number, frame in enumerate(_to_and_fro(frames)):
        timer.begin()
        tensors = await pipeline.run_head(frame)
        timer.lap("head")
        stamp = Stamp(number, frame.captured_ns, frame.height, frame.width)
        encoded = await pipeline.encode(tensors, stamp, step, _ANY_BYTES)
        if number == 0:  # a keyframe, as there is one in minutes
            timer = FrameTimer()
            continue
        timer.lap("encode")
        timer.end(len(encoded.data))
        if timer.is_over:
            break
    return timer.cost


def judge_camera_engine(
    cost: FrameCost,
    settings: CameraSettings,
    canvas: tuple[int, int],
    wanted_fps: float | None,
    *,
    told: bool,
) -> Finding:
    """What is to be said of a camera that has to compute so many frames a second; `told`: somebody said so."""
    measured = "{}: {:.1f} frames/s at {}x{}".format(cost, cost.fps, *canvas)
    facts = {**cost.facts, "fps": round(cost.fps, 2), "wanted_fps": wanted_fps, "canvas": list(canvas)}
    if wanted_fps is None or cost.fps >= COMFORT * wanted_fps:
        return fine(measured, **facts)
    advice = (
        f"{_smaller(settings, canvas, cost.fps / (COMFORT * wanted_fps))}--effort 0, a smaller --model, or a lower "
        "frame rate of the camera itself"
    )
    if cost.fps >= wanted_fps:
        return doubtful(f"{measured}, of which {wanted_fps:.4g} are wanted: little is left", advice, **facts)
    measured += f", and {wanted_fps:.4g} are wanted: frames will be dropped"
    return wrong(measured, advice, **facts) if told else doubtful(measured, advice, **facts)


def _smaller(settings: CameraSettings, canvas: tuple[int, int], factor: float) -> str:
    """The flag for a canvas that takes about so much of the time; nothing where it would be too small to see much."""
    scale = math.sqrt(min(factor, 1.0))
    sides = [math.floor(side * scale / STRIDE) * STRIDE for side in canvas]
    if min(sides) < _LEAST_SIDE:
        return ""
    size = f"{max(sides)}" if isinstance(parse_size(settings.size), int) else "{}x{}".format(*sides)
    return f"--size {size}, "


def _to_and_fro(frames: Sequence[Frame]) -> Iterator[Frame]:
    """The frames for ever, each after one that it came beside."""
    return cycle(chain(frames, reversed(frames[1:-1])))
