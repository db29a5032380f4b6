"""Whether every frame of a camera is accounted for, to itself and to Prometheus."""

from __future__ import annotations

from services.camera.service import Camera


def balances(camera: Camera) -> bool:
    counts, metrics = camera.statistics.frame_counts, camera.statistics.metrics
    told = [(metrics.recorded, counts.recorded), (metrics.detected_locally, counts.detected_locally)]
    # What operators read has to agree at every moment, too: also while a frame is in work.
    if any(next(iter(metric.collect())).samples[0].value != count for metric, count in told):
        return False
    return counts.captured == counts.kept + counts.dropped_total + counts.in_flight
