"""What is said of a way to the detector."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.doctor.frame_cost import FrameCost
from services.doctor.link import judge_refusal, judge_way, judge_welcome
from services.doctor.settings import DoctorCameraSettings
from services.doctor.trial import MeasuredLink
from stream.errors import ConnectionLost
from stream.session.camera import Accepted
from stream.session.close_codes import PERMANENT, CloseCode

WAY = MeasuredLink(0.02, 0.001, 5000.0, is_least=False, window=8, frames_per_s=None, max_packet_bytes=2**20)
COST = FrameCost({"head": 10.0, "encode": 5.0}, 100, 5000.0)  # 600 kbit/s at 15 frames/s


@pytest.fixture
def settings():
    return DoctorCameraSettings.load({"source": "demo"})


@pytest.mark.parametrize(
    ("changes", "words", "advice"),
    [
        ({"kbps": 650.0}, "that is too little", "--target-kbps 520"),
        ({"round_trip_s": 0.3}, "3 unanswered frames allow 10.0 frames/s", "--window 6"),
        ({"max_packet_bytes": 5120}, "packets may have 5.1 kB", "--max-packet-kib"),
        ({"frames_per_s": 5.0}, "the token allows 5 frames/s", "--frames-per-s"),
        ({"round_trip_s": 0.6}, "detections will be late", "nearer"),
        ({"window": 1, "round_trip_s": 0.1}, "1 unanswered frames", "--window of the detector 2"),
    ],
)
def test_a_way_that_is_too_thin_or_too_long(settings, changes, words, advice):
    assert judge_way(WAY, settings, COST, 15.0).level == "ok"
    finding = judge_way(replace(WAY, **changes), settings, COST, 15.0)
    assert (finding.level, words in finding.measured, advice in finding.advice) == ("warning", True, True)


def test_what_rate_control_is_told_counts(settings):
    thin = replace(WAY, kbps=300.0)
    told = settings.model_copy(update={"target_kbps": 200.0})
    assert (judge_way(thin, settings, COST, 15.0).level, judge_way(thin, told, COST, 15.0).level) == (
        "warning",
        "ok",
    )
    told = settings.model_copy(update={"max_latency_ms": 30.0})
    finding = judge_way(WAY, told, COST, 15.0)
    assert "with 15 ms of this machine's that is more than --max-latency-ms 30" in finding.measured


def test_the_numbers(settings):
    finding = judge_way(WAY, settings, COST, 15.0)
    assert (finding.facts["kbps"], finding.facts["needed_kbps"]) == (5000, 600)
    assert "5.0 Mbit/s to the detector; 600 kbit/s are needed" in finding.measured


def test_nothing_is_needed_that_is_not_known(settings):
    assert judge_way(WAY, settings, None, None).level == "ok"


PASSING = {
    CloseCode.STREAM_TAKEN,
    CloseCode.TOO_MANY_STREAMS,
    CloseCode.TRY_AGAIN_LATER,
    CloseCode.GOING_AWAY,
}


@pytest.mark.parametrize("code", sorted(PASSING | PERMANENT), ids=lambda code: code.name)
def test_what_another_moment_may_not_bring_is_no_error(code):
    finding = judge_refusal(ConnectionLost("because", code))
    assert finding.level == ("warning" if code in PASSING else "error")
    assert (f"({int(code)}): because" in finding.measured, bool(finding.advice)) == (True, True)


def test_a_welcome(settings):
    assert "12 frames/s" in judge_welcome(settings, Accepted(3, 12.0)).measured
