"""Whether every frame of a camera is accounted for."""

from __future__ import annotations

from services.camera.service import Camera


def balances(camera: Camera) -> bool:
    counts = camera.statistics.frame_counts
    return counts.captured == counts.kept + counts.dropped_total + counts.in_flight
