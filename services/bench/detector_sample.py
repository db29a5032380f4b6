"""What a detector tells of itself at one moment, by its metrics: so it may be any detector, here or elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from services.errors import NotMeasurable
from stream.transport.tls import ClientTls

_FRAMES = "splitcast_detector_frames_detected_total"
_DELAY = "splitcast_detector_event_loop_delay_seconds_bucket"
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class DetectorSample:
    """Counters of one detector process since its start, and its memory now."""

    cpu_s: float
    resident_bytes: float
    frames: float  # detected
    loop_delays: Mapping[float, float] = field(default_factory=dict)  # how many were at most so many seconds

    @classmethod
    def parse(cls, text: str) -> DetectorSample:
        """From what `GET /metrics` answers. Raises NotMeasurable where a metric is lacking."""
        values: dict[str, float] = {}
        delays: dict[float, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == _DELAY:
                    delays[float(sample.labels["le"])] = sample.value
                elif not sample.labels:
                    values[sample.name] = sample.value
        try:
            return cls(
                values["process_cpu_seconds_total"],
                values["process_resident_memory_bytes"],
                values[_FRAMES],
                delays,
            )
        except KeyError as missing:
            raise NotMeasurable(f"the detector does not export {missing}; it has to run on Linux") from None

    def __add__(self, other: DetectorSample) -> DetectorSample:
        """Both together, as if they were one process."""
        bounds = self.loop_delays.keys() | other.loop_delays.keys()
        return DetectorSample(
            self.cpu_s + other.cpu_s,
            self.resident_bytes + other.resident_bytes,
            self.frames + other.frames,
            {bound: self.loop_delays.get(bound, 0.0) + other.loop_delays.get(bound, 0.0) for bound in bounds},
        )

    def delay_quantile_s(self, before: DetectorSample, quantile: float) -> float:
        """How late the event loop was since `before`, as Prometheus' histogram_quantile tells it; 0 if it never ran."""
        counts = {
            most_s: count - before.loop_delays.get(most_s, 0.0)
            for most_s, count in sorted(self.loop_delays.items())
        }
        rank = quantile * max(counts.values(), default=0.0)
        low_s = passed = 0.0
        for most_s, count in counts.items():
            if count >= rank > 0:
                if most_s == float("inf"):
                    break
                return low_s + (most_s - low_s) * (rank - passed) / (count - passed)
            low_s, passed = most_s, count
        return low_s if rank else 0.0


async def sample(
    url: str, headers: Mapping[str, str] | None = None, tls: ClientTls | None = None
) -> DetectorSample:
    """A sample of the detector at ws://host:port. Raises NotMeasurable where it does not answer.

    `headers` and `tls` are as in `connect`.
    """
    address = f"{url.replace('ws', 'http', 1)}/metrics"
    try:
        timeout = aiohttp.ClientTimeout(TIMEOUT_S)
        pinned = tls.pinned if tls else None
        connector = aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(pinned) if pinned else True)
        context = await asyncio.to_thread(tls.context) if tls else True
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers) as session,
            session.get(address, ssl=context) as answer,
        ):
            answer.raise_for_status()
            return DetectorSample.parse(await answer.text())
    except (aiohttp.ClientError, TimeoutError) as error:
        raise NotMeasurable(f"no metrics from {address} ({error or type(error).__name__})") from None
