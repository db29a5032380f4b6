"""What `make soak` says of its figures."""

from __future__ import annotations

import copy
import signal

import pytest

from services.chaos.faults import parse_fault
from tests.faults.programs import Program, running
from tests.faults.soak import LINK_FAULTS, Progress, Series, broken, page

PROCESS = {
    "mb_per_hour": 0.2,
    "anonymous_mb_per_hour": 0.1,
    "mb_first_third": 400.0,
    "mb_last_third": 400.1,
    "descriptors": [9, 11],
    "threads": [4, 4],
}
CYCLED = {"growth_mb": 0.5, "anonymous_growth_mb": 0.4, "descriptors": [8, 8], "threads": [3, 3]}
FIGURES = {
    "commit": "abc",
    "machine": "2 cores",
    "python": "3.11",
    "soak": {
        "seconds": 3600.0,
        "warm_up_s": 600.0,
        "polls": 1000,
        "most_frames_unaccounted_for": 0.0,
        "processes": {"detector": PROCESS},
        "cameras": {
            "camera file": {
                "captured": 10.0,
                "detected": 9.0,
                "dropped": 1.0,
                "reconnects": {"source": 0.0, "detector": 2.0},
            }
        },
        "consumer": {"connections": 3, "messages": {"detections": 9}},
        "link_faults": {"reset": 2},
        "source_faults": {},
    },
    "session_reconnects": {
        "cycles": 1000,
        "warm_up_cycles": 100,
        "seconds": 900.0,
        "processes": {"camera": CYCLED},
    },
}


def changed(**changes: float) -> dict:
    figures = copy.deepcopy(FIGURES)
    for name, value in changes.items():
        for part in (
            figures["soak"],
            figures["soak"]["processes"]["detector"],
            figures["session_reconnects"]["processes"]["camera"],
        ):
            if name in part:
                part[name] = value
    return figures


def test_kept():
    assert broken(FIGURES) == []
    text = page(FIGURES)
    assert "| detector | 0.2 | 0.1 | 400 | 400.1 | 9 to 11 | 4 |" in text
    assert "| camera | 0.5 | 0.4 | 8 | 3 |" in text
    assert text.endswith("Every bound is kept.\n")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mb_per_hour": 1.0}, "detector grows by 1 MB/h"),
        ({"most_frames_unaccounted_for": 2.0}, "2 frames were not accounted for"),
        ({"growth_mb": 5.5}, "camera grew by 5.5 MB in 1000 session_reconnects"),
    ],
)
def test_not_kept(changes, words):
    figures = changed(**changes)
    assert broken(figures) == [words]
    assert page(figures).endswith(f"Not kept: {words}.\n")


def test_the_slope_is_of_what_comes_after_the_warm_up():
    series = Series(
        seconds=[0.0, 1800.0, 3600.0, 5400.0],
        resident_mb=[100.0, 400.0, 401.0, 402.0],
        anonymous_mb=[50.0, 200.0, 200.0, 200.0],
        descriptors=[50, 9, 10, 9],
        threads=[1, 4, 4, 4],
    )
    described = series.describe(1800.0)
    assert described["mb_per_hour"] == pytest.approx(2.0)
    assert described["anonymous_mb_per_hour"] == pytest.approx(0.0, abs=1e-9)
    assert described["descriptors"] == [9, 10]


def test_progress_is_told_once_a_minute(capsys):
    progress = Progress("soak", 100.0)
    for now_s in range(100, 300, 10):
        progress.tell(f"at {now_s}", now_s)
    assert capsys.readouterr().out == "soak: at 160\nsoak: at 220\nsoak: at 280\n"


async def test_what_a_phase_that_fails_has_started_is_ended():
    """Also what its programs have started, which holds their standard error open."""
    first, second = Program("camera", 0), Program("camera", 0)
    first._arguments = ["sh", "-c", 'sleep 600 & echo "{\\"event\\": \\"up\\"}" >&2; wait']
    second._arguments = ["/nowhere"]
    with pytest.raises(FileNotFoundError):
        async with running(first, second):
            pass
    assert first.exit_code == -signal.SIGKILL


@pytest.mark.parametrize("text", LINK_FAULTS)
def test_its_faults_are_faults_and_end(text):
    assert parse_fault(text).duration is not None
