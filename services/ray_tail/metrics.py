"""What a detector with its tails in Ray exports to Prometheus, beside its own metrics."""

from __future__ import annotations

from services.metrics import Metrics


class RayMetrics:
    """`splitcast_detector_ray_*`; packets that were lost are `frames_rejected_total{reason="lost"}`."""

    def __init__(self, metrics: Metrics) -> None:
        self.replicas = metrics.gauge("ray_replicas", "Replicas of Ray Serve that run (--tail ray)")
        self.overhead = metrics.seconds(
            "ray_overhead_seconds",
            "Time that a call of a replica took beyond the replica's own work: Ray's share of a frame",
        )
        self.lost = metrics.counter(
            "ray_calls_lost", "Calls of a replica that were not answered: it died, or took too long"
        )
