"""The delay of a frame, on numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.evaluation.delay import LinkModel, Placement, delay_ms, frames_per_s, ranked, transfer_ms

SPLIT = Placement("split", "split", camera_ms=20, detector_ms=60, bytes=5000, agreement=0.96)
HERE = Placement("here", "all here", camera_ms=90, detector_ms=0, bytes=500)
PIXELS = Placement("pixels", "pixels", camera_ms=2, detector_ms=85, bytes=25_000, agreement=0.97)


def test_delay_is_the_sum_of_its_parts() -> None:
    link = LinkModel(kbps=1000, rtt_ms=30, detector_speed=2)
    assert transfer_ms(SPLIT, link) == 40, "40000 bits at 1000 bits a millisecond"
    assert delay_ms(SPLIT, link) == 20 + 40 + 15 + 30
    assert delay_ms(HERE, link) == 90 + 4 + 15


def test_the_slowest_part_limits_the_frame_rate() -> None:
    assert frames_per_s(SPLIT, LinkModel(1000)) == pytest.approx(1000 / 60), "the detector"
    assert frames_per_s(SPLIT, LinkModel(1000, detector_speed=10)) == pytest.approx(1000 / 40), "the link"
    assert frames_per_s(SPLIT, LinkModel(100_000, detector_speed=10)) == pytest.approx(1000 / 20), (
        "the camera"
    )
    assert frames_per_s(SPLIT, LinkModel(1000, rtt_ms=500)) == pytest.approx(1000 / 60), (
        "a round trip delays no other frame"
    )


@pytest.mark.parametrize(
    ("link", "best"),
    [
        (LinkModel(10, detector_speed=10), "here"),
        (LinkModel(5000, detector_speed=10), "split"),
        (LinkModel(1_000_000, detector_speed=10), "pixels"),
    ],
)
def test_the_link_decides(link: LinkModel, best: str) -> None:
    assert ranked([SPLIT, HERE, PIXELS], link)[0].name == best


def test_what_cannot_keep_up_or_does_not_agree_comes_later() -> None:
    link = LinkModel(5000, detector_speed=10)
    assert [one.name for one in ranked([HERE, SPLIT, PIXELS], link)] == ["split", "pixels", "here"]
    assert [one.name for one in ranked([HERE, SPLIT, PIXELS], link, fps=30)] == ["split", "pixels", "here"]
    quick = Placement("quick", "all here", camera_ms=30, detector_ms=0, bytes=0)
    steady = Placement("steady", "split", camera_ms=20, detector_ms=0, bytes=7500)
    assert [one.name for one in ranked([steady, quick], link)] == ["quick", "steady"], "30 and 32 ms"
    assert ranked([steady, quick], link, fps=40)[0].name == "steady", "33 and 50 frames/s"
    poor = replace(SPLIT, agreement=0.7)
    assert [one.name for one in ranked([poor, HERE, PIXELS], link, agreement=0.95)] == [
        "pixels",
        "here",
        "split",
    ]
