"""The texts of faults, and when a fault is on."""

from __future__ import annotations

import math
import re
from itertools import islice

import pytest

from services.chaos.faults import FAULTS, BlackHole, Flip, HalfOpen, Latency, Lose, Reset, parse_fault

SAY = {
    "latency": "ms=250,jitter=50,direction=up",
    "bandwidth": "kbps=64",
    "blackhole": "start=10,duration=30",
    "slow-close": "ms=2000",
    "reset": "start=5,period=5",
    "half-open": "side=client",
    "delay": "ms=100,kind=text",
    "reorder": "ms=50",
    "truncate": "keep=.25",
    "flip": "kind=keyframe,count=2",
    "duplicate": "copies=2,at=4",
    "lose": "probability=.1,direction=down",
    "oversize": "mib=9,every=10",
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_can_be_said(name):
    assert isinstance(parse_fault(f"{name}:{SAY[name]}"), FAULTS[name])


def test_values_are_read():
    assert parse_fault("latency:ms=250,jitter=50") == Latency(ms=250, jitter=50)
    assert parse_fault("flip:kind=binary,every=10,at=3,probability=0.5") == Flip(
        kind="binary", every=10, at=3, probability=0.5
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is no fault; there are latency, bandwidth"),
        ("flipp", "'flipp' is no fault"),
        ("latency", "latency: ms=... is needed"),
        ("latency:ms", "latency: ms: "),
        ("latency:ms=-1", "greater than or equal to 0"),
        ("latency:ms=nan", "latency: ms: "),
        ("latency:ms=inf", "latency: ms: "),
        ("latency:ms=1,ms=2", "ms is given twice"),
        ("flip:kind=pixel", "flip: kind: "),
        ("flip:bits=1.5", "flip: bits: "),
        ("flip:side=client", "flip: there is no 'side'; it takes start, duration, period, kind"),
        ("reset:kind=text", "reset: there is no 'kind'"),
        ("blackhole:period=3", "a fault with a period needs a duration, which is shorter"),
        ("blackhole:period=3,duration=3", "a fault with a period needs a duration, which is shorter"),
    ],
)
def test_what_is_wrong_is_said(text, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        parse_fault(text)


def test_windows():
    assert list(BlackHole().windows()) == [(0, math.inf)]
    assert list(BlackHole(start=10, duration=30).windows()) == [(10, 40)]
    assert list(Reset(start=5).windows()) == [(5, 5)]
    assert list(islice(Reset(start=5, period=60).windows(), 3)) == [(5, 5), (65, 65), (125, 125)]


def test_who_is_not_told():
    assert HalfOpen().untold == ("client", "server")
    assert HalfOpen(side="server").untold == ("server",)


@pytest.mark.parametrize(
    ("fault", "fitting"),
    [
        (Lose(), {"text", "binary", "keyframe"}),
        (Lose(kind="binary"), {"binary", "keyframe"}),
        (Lose(kind="keyframe"), {"keyframe"}),
        (Lose(kind="text"), {"text"}),
    ],
)
def test_which_messages_fit(fault, fitting):
    assert {kind for kind in ("text", "binary", "keyframe") if fault.fits("up", kind)} == fitting


def test_a_direction_fits_itself():
    assert Lose(direction="up").fits("up", "text")
    assert not Lose(direction="up").fits("down", "text")
