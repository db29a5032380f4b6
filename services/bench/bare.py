"""What a frame costs where nothing but decoder, tail and boxes run: what a detector is compared with."""

from __future__ import annotations

import time
from statistics import fmean

from services.bench.load_figures import BareCost
from services.bench.recording import RecordedPackets
from services.loading import LoadedModel
from stream.latency import StageClock
from stream.letterbox import Letterbox
from stream.network.boxes import detect

LEAST_FRAMES = 60
WARM_UP_FRAMES = 5


def bare_cost(network: LoadedModel, recorded: RecordedPackets) -> BareCost:
    """CPU of one frame of the recorded packets, a mean as the detector's is. Nothing else may run in this process."""
    decoder = recorded.codec.decoder(recorded.layout)
    tail, levels = network.model.tail(recorded.split), network.model.levels
    letterbox = Letterbox(recorded.frame_size, recorded.canvas)
    rounds = -(-(LEAST_FRAMES + WARM_UP_FRAMES) // len(recorded.packets))
    costs_ns = []
    for packet in recorded.packets * rounds:
        clock = StageClock(time.process_time_ns())
        tensors = decoder.decode(packet).tensors
        clock.lap("decode", time.process_time_ns())
        (logits,) = tail([tensors])
        clock.lap("tail", time.process_time_ns())
        detect(logits, levels, letterbox)
        clock.lap("boxes", time.process_time_ns())
        costs_ns.append(clock.durations_ns)
    decode_ms, tail_ms, boxes_ms = (
        round(fmean(cost[stage] for cost in costs_ns[WARM_UP_FRAMES:]) / 1e6, 3)
        for stage in ("decode", "tail", "boxes")
    )
    return BareCost(decode_ms, tail_ms, boxes_ms)
