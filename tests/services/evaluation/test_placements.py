"""Ways to share the work, made of estimates and of records."""

from __future__ import annotations

from typing import Any

from services.evaluation.delay import LinkModel, Placement
from services.evaluation.placements import (
    CODED_SHARE,
    TRIED,
    estimated_placements,
    pixel_placements,
    points_to_try,
    split_placements,
)
from services.evaluation.point_costs import PointCost
from services.evaluation.scores import EvaluationRecord


def test_where_nothing_was_coded_the_bytes_are_a_share_of_the_raw_tensors() -> None:
    (placement,) = estimated_placements([PointCost("4.m", 20.0, 50.0, 1_200_000)])
    assert placement.estimated
    assert (placement.point, placement.camera_ms, placement.detector_ms) == ("4.m", 20, 50)
    assert placement.bytes == CODED_SHARE * 1_200_000


def test_the_default_and_the_most_promising_points_are_tried() -> None:
    guessed = [
        Placement(f"{number}", "split", camera_ms=number, detector_ms=20 - number, bytes=size, point=point)
        for number, (point, size) in enumerate({"0": 9e6, "4.m": 8e5, "9": 2e5, "10": 1e5, "11": 3e5}.items())
    ]
    assert points_to_try(guessed, LinkModel(1000), []) == ["4.m", "10", "9", "11", "0"][: TRIED + 1]
    assert points_to_try(guessed, LinkModel(1000), ["9", "0", "9"]) == ["9", "0"]


def _record(codec: str, setting: str, kb: float, agreement: float | None, **times: float) -> EvaluationRecord:
    given: dict[str, Any] = dict.fromkeys(EvaluationRecord.__dataclass_fields__)
    given |= {"codec": codec, "setting": setting, "kb_per_frame": kb, "agreement": agreement}
    return EvaluationRecord(**{**given, "unsplit_ms": 70.0, "frames": 10, "objects": 50, **times})


def test_choices_come_from_the_records() -> None:
    none = _record("none", "", 0, 0.995)
    coded = _record(
        "feature",
        "quality=6,profile=none",
        12.5,
        0.97,
        head_ms=20.0,
        encode_ms=5.0,
        decode_ms=2.0,
        tail_ms=50.0,
    )
    (choice,) = split_placements([none, coded], "4.m")
    assert (choice.camera_ms, choice.detector_ms, choice.bytes, choice.agreement) == (25, 52, 12_500, 0.97)
    assert "uncalibrated" in choice.name
    pixels = [
        _record("x264", f"crf={crf}", kb, agreement, encode_ms=3.0, decode_ms=1.0)
        for crf, kb, agreement in ((10, 50.0, 0.98), (20, 20.0, 0.955), (30, 5.0, 0.8))
    ]
    jpeg = [_record("jpeg", "quality=90", 80.0, 0.9, encode_ms=1.0, decode_ms=1.0)]
    video, stills = pixel_placements([none, *pixels, *jpeg])
    assert video.name == "send H.264 (x264:crf=20)", "the cheapest that agrees"
    assert (video.camera_ms, video.detector_ms, video.bytes) == (3, 71, 20_000)
    assert stills.agreement == 0.9, "the best, where none agrees well enough"
