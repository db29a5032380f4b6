"""Faults of the link between a camera and its detector, as `splitcast chaos` makes them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from tests.faults.harness import MOVING, detecting, rig
from tests.services.waiting import until


@dataclass(frozen=True)
class LinkFault:
    """What happens, and what is to come of it."""

    name: str
    faults: tuple[str, ...]
    bound_s: float  # from its end to detections
    what: str
    told: tuple[str, ...] = ()  # one of these
    lasts_s: float = 0.0
    strikes: int = 0  # so often, and then it is over
    survives: bool = False  # the connection


# unknown: what a camera dropped while no connection of it was known to be lost
LOST = ("lost", "network/connection_lost", "unknown")
PACKET = "direction=up,kind=binary"
ANSWER = "direction=down,kind=binary"
CORRUPT = ("detector/corrupt",)
# A camera that replaces its own connection between two frames loses none.
REPLACED = (*LOST, "connected")
MISSING = ("detector/missing_reference", "detector/reference_mismatch")


def keyframes(count: int) -> LinkFault:
    """A damaged packet, and so many keyframes that answer it."""
    return LinkFault(
        f"{count} keyframes flipped in a row" if count > 1 else "the answering keyframe flipped, too",
        (f"flip:{PACKET},count=1", f"flip:direction=up,kind=keyframe,count={count}"),
        1.0,
        "rejected; each next packet is a keyframe",
        CORRUPT,
        strikes=1 + count,
    )


FAULTS = [
    LinkFault("reset", ("reset",), 1.0, "both ends get a reset", LOST, strikes=1),
    LinkFault(
        "outage of 3 s", ("reset:duration=3",), 1.0, "whoever connects gets a reset", LOST, lasts_s=3.0
    ),
    LinkFault("half-open, the camera not told", ("half-open:side=client",), 5.0, "", LOST, strikes=1),
    LinkFault("half-open, the detector not told", ("half-open:side=server",), 1.0, "", REPLACED, strikes=1),
    LinkFault(
        "half-open, nobody told", ("half-open",), 5.0, "as if a router had forgotten it", REPLACED, strikes=1
    ),
    LinkFault(
        "black hole of 2 s",
        ("blackhole:duration=2",),
        1.0,
        "",
        ("grab/superseded", "network/stale"),
        lasts_s=2.0,
    ),
    LinkFault(
        "500 ms round trip, 100 ms jitter", ("latency:ms=250,jitter=50",), 1.0, "", lasts_s=3.0, survives=True
    ),
    LinkFault("packet truncated", (f"truncate:{PACKET},count=1",), 1.0, "rejected", CORRUPT, strikes=1),
    LinkFault("packet flipped", (f"flip:{PACKET},count=1",), 1.0, "rejected", CORRUPT, strikes=1),
    keyframes(1),
    keyframes(2),
    keyframes(5),
    LinkFault(
        "45 % of the packets flipped",
        (f"flip:{PACKET},probability=.45",),
        1.0,
        "rejected",
        CORRUPT,
        lasts_s=3.0,
    ),
    LinkFault("packet duplicated", (f"duplicate:{PACKET},count=1",), 2.0, "", (*LOST, *MISSING), strikes=1),
    LinkFault(
        "packets reordered", (f"reorder:{PACKET},count=1,ms=300",), 2.0, "", (*LOST, *MISSING), strikes=1
    ),
    LinkFault("packet lost", (f"lose:{PACKET},count=1",), 2.0, "", (*LOST, *MISSING), strikes=1),
    LinkFault(
        "packet oversized", (f"oversize:{PACKET},count=1,mib=9",), 2.0, "closed with 1009", LOST, strikes=1
    ),
    LinkFault("answer lost", (f"lose:{ANSWER},count=1",), 2.0, "", LOST, strikes=1),
    LinkFault("answer flipped", (f"flip:{ANSWER},count=1,bits=8",), 2.0, "", LOST, strikes=1),
    LinkFault("answer duplicated", (f"duplicate:{ANSWER},count=1",), 2.0, "", LOST, strikes=1),
]
PATIENT = [
    LinkFault("black hole of 30 s", ("blackhole:duration=30",), 2.0, "", ("stalled", "lost"), lasts_s=30.0),
    LinkFault("64 kbit/s", ("bandwidth:kbps=64",), 2.0, "", lasts_s=20.0, survives=True),
]


@pytest.mark.parametrize(
    "fault",
    [
        *(pytest.param(fault, id=fault.name) for fault in FAULTS),
        *(pytest.param(fault, id=fault.name, marks=pytest.mark.patient) for fault in PATIENT),
    ],
)
async def test_a_fault_of_the_link(fault):
    async with detecting() as detector, rig(detector, MOVING) as one:
        async with one.trouble(fault.name, fault.bound_s, fault.told, fault.what) as outcome:
            connections = one.proxy.report.accepted
            switches = [one.proxy.begin(text) for text in fault.faults]
            records = [switch.record for switch in switches]
            await asyncio.sleep(fault.lasts_s)
            await until(lambda: sum(record.count for record in records) >= fault.strikes)
            last_s = max((record.last_s for record in records if fault.strikes), default=one.proxy.now_s())
            outcome.over(one.proxy.now_s() - last_s)
            for switch in switches:
                one.proxy.end(switch)
        if fault.survives:
            assert one.proxy.report.accepted == connections
