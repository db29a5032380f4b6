"""How many frames a second this machine finishes as a detector: the decoder, the tail, and the boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from codec.layout import FloatArray
from codec.packet import Stamp
from codec.spec import parse_codec
from services.detector.settings import DetectorSettings
from services.doctor.finding import Finding, doubtful, fine, wrong
from services.doctor.frame_cost import COMFORT, FRAME_SIZE, PICTURES, FrameCost, FrameTimer, example_frames
from services.loading import LoadedModel
from services.profiles import resolve
from services.settings import DEFAULT_CODEC
from stream.canvas import canvas_for
from stream.errors import CheckpointError
from stream.letterbox import Letterbox
from stream.network.boxes import detect


def measure_detector(settings: DetectorSettings, network: LoadedModel) -> FrameCost:
    """What one thread takes of frames that a camera sends with the default codec. For a thread."""
    model, split = network.model, settings.split or network.default_split
    canvas = canvas_for(max(FRAME_SIZE), *FRAME_SIZE, model.stride)
    layout, letterbox = model.cut(split).layout(canvas), Letterbox(FRAME_SIZE, canvas)
    codec = resolve(parse_codec(DEFAULT_CODEC), model.weights_hash, split)
    codec.load()
    encoder, decoder, tail = codec.encoder(layout), codec.decoder(layout), model.tail(split)
    packets = [
        encoder.encode(tensors, Stamp(number, number, *FRAME_SIZE)).data
        for number, tensors in enumerate(_tensors(network, split, letterbox))
    ]
    tail([decoder.decode(packets[0]).tensors])  # fetches memory, and chooses kernels
    timer = FrameTimer()
    while not timer.is_over:
        decoder.decode(packets[0])  # a keyframe, as there is one in minutes
        for packet in packets[1:]:
            timer.begin()
            tensors = decoder.decode(packet).tensors
            timer.lap("decode")
            (logits,) = tail([tensors])
            timer.lap("tail")
            detect(
                logits,
                model.levels,
                letterbox,
                conf=settings.confidence,
                iou=settings.iou,
                max_det=settings.max_detections,
            )
            timer.lap("nms")
            timer.end(len(packet))
    return timer.cost


def judge_detector_engine(
    cost: FrameCost, settings: DetectorSettings, device: str, wanted_fps: float | None
) -> Finding:
    """What is to be said of a detector that works on `--tails` frames at a time, of all cameras."""
    tails = settings.tail_threads
    most = cost.fps * tails
    measured = f"{cost} on {device}: {most:.0f} frames/s on {tails} threads (--tails), a core each"
    facts = {**cost.facts, "device": device, "tails": tails, "fps": round(most, 2), "wanted_fps": wanted_fps}
    if wanted_fps is None or most >= COMFORT * wanted_fps:
        return fine(measured, **facts)
    advice = (
        "a GPU (--engine torch --device cuda), a smaller --model, fewer frames of each camera (frames_per_s of its "
        "token), or another detector"
    )
    if most >= wanted_fps:
        return doubtful(f"{measured}, of which {wanted_fps:.4g} are wanted: little is left", advice, **facts)
    return wrong(f"{measured}, and {wanted_fps:.4g} are wanted: frames will be stale", advice, **facts)


def _tensors(network: LoadedModel, split: str, letterbox: Letterbox) -> Sequence[Mapping[str, FloatArray]]:
    """What crosses of frames one after another; blank where only the tail of an exported network is here."""
    try:
        head = network.model.head(split, letterbox.canvas)
    except CheckpointError:
        layout = network.model.cut(split).layout(letterbox.canvas)
        return [{spec.name: np.zeros(spec.shape, np.float32) for spec in layout}] * PICTURES
    return [head(letterbox.apply(frame.image)) for frame in example_frames()]
