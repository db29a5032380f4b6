"""Advice for a link: what is measured, what is said, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from codec.feature.profile import Profile
from codec.packet import Stamp
from codec.rle.codec import Rle
from services.cli import main
from services.errors import Exit
from services.evaluation.advise import sentences
from services.evaluation.dataset import read_clip
from services.evaluation.delay import LinkModel, Placement, ranked
from services.evaluation.placements import (
    CODED_SHARE,
    TRIED,
    estimated_placements,
    pixel_placements,
    points_to_try,
    split_placements,
)
from services.evaluation.point_costs import node_times_ms, point_costs
from services.evaluation.scores import EvaluationRecord
from stream.letterbox import Letterbox
from stream.network.cut import layout, split_points
from stream.network.model import Model, load_model
from stream.network.split import Head
from tests.services.calibrated import make_profile


@pytest.fixture(scope="module")
def model(weights: Path) -> Model:
    return load_model(weights)


def test_times_add_up_along_the_network(model: Model) -> None:
    picture = torch.zeros(1, 3, 64, 96)
    times = node_times_ms(model.graph, picture, rounds=2)
    assert list(times) == [node.name for node in model.graph.nodes]
    assert min(times.values()) > 0
    costs = point_costs(model, picture)
    assert [cost.point for cost in costs] == list(split_points(model.graph))
    heads = [cost.head_ms for cost in costs]
    assert heads == sorted(heads)
    assert len({round(cost.head_ms + cost.tail_ms, 6) for cost in costs}) == 1
    at = next(cost for cost in costs if cost.point == "4.m")
    assert at.raw_bytes == sum(spec.raw_bytes for spec in layout(model.graph, "4.m", (64, 96)))
    guessed = next(choice for choice in estimated_placements(costs) if choice.point == "4.m")
    assert guessed.estimated
    assert guessed.bytes == CODED_SHARE * at.raw_bytes


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


@pytest.mark.parametrize(
    ("kbps", "begins"), [(20, "Run it all at the camera"), (2000, "Split: "), (10**6, "Send pixels: ")]
)
def test_words_follow_the_link(kbps: float, begins: str) -> None:
    choices = [
        Placement("4.m", "split", 20, 60, 5000, 0.96),
        Placement("here", "all here", 90, 0, 500),
        Placement("H.264", "pixels", 2, 85, 25_000, 0.97),
    ]
    link = LinkModel(kbps, detector_speed=10)
    words = sentences(ranked(choices, link), link, 0, "10 frames of a clip")
    assert words[0].startswith(begins)
    assert "--source" in words[-1]
    assert len(words) == 4


def test_words_tell_what_is_wrong_with_a_choice() -> None:
    link = LinkModel(2000, detector_speed=10)
    poor = Placement("4.m", "split", 20, 60, 5000, 0.8)
    words = sentences([poor], link, 100, "a clip")
    assert any("0.80, below 0.95" in line for line in words)
    assert any("100 frames/s" in line for line in words)
    good = replace(poor, agreement=0.99)
    assert "agreement is only 0.80" in sentences([good, poor], link, 0, "a clip")[1]


def test_measures_a_real_network_and_tells_the_same_in_json(
    weights: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Model
) -> None:
    out = tmp_path / "advice.json"
    code = main(
        ["advise", "--model", str(weights), "--link-kbps", "500", "--rtt-ms", "20", "--source", str(video),
         "--frames", "3", "--size", "64x96", "--split", "4.m", "--split", "9", "--json", str(out)]
    )  # fmt: skip
    assert code == Exit.OK
    printed = capsys.readouterr().out
    told = json.loads(out.read_text())
    assert [one["point"] for one in told["points"]] == list(split_points(model.graph))
    for line in told["advice"]:
        assert line in printed
    assert {one["kind"] for one in told["choices"]} == {"split", "pixels", "all here"}
    chosen = next(one for one in told["choices"] if one["name"] == "split at 9, rle:bits=4")
    head, sizes = Head(model, "9", (64, 96)), []
    for picture in read_clip(video, max_frames=3).pictures:
        canvas = Letterbox((64, 96), (64, 96)).apply(picture.image)
        sizes.append(len(Rle(4).encoder(head.layout).encode(head(canvas), Stamp(0, 0, 1, 1)).data))
    assert chosen["bytes"] == pytest.approx(sum(sizes) / 3, abs=1)
    first = told["choices"][0]
    assert first["name"] in told["advice"][0]


def test_a_profile_counts_at_the_point_it_was_made_for(
    weights: Path, video: Path, tmp_path: Path, model: Model
) -> None:
    profile = make_profile(layout(model.graph, "9", (64, 96)))
    (file := tmp_path / "nine.profile").write_bytes(
        Profile(profile.groups, {**profile.metadata, "split": "9"}).pack()
    )
    out = tmp_path / "advice.json"
    given = ["advise", "--model", str(weights), "--link-kbps", "500", "--source", str(video), "--frames", "2"]
    given += ["--size", "64x96", "--split", "4.m", "--profile", str(file), "--json", str(out)]
    assert main(given) == Exit.OK
    found = {one["name"]: one["point"] for one in json.loads(out.read_text())["choices"] if one["point"]}
    assert found == {
        "split at 4.m, rle:bits=4": "4.m",
        "split at 4.m, feature:quality=6, uncalibrated": "4.m",
        "split at 9, rle:bits=4": "9",
        "split at 9, feature:quality=6": "9",
    }


def test_a_profile_of_another_network_is_refused(
    weights: Path, video: Path, tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = make_profile(layout(model.graph, "9", (64, 96)))  # which does not tell its split point
    (file := tmp_path / "other.profile").write_bytes(profile.pack())
    given = ["advise", "--model", str(weights), "--link-kbps", "500", "--source", str(video), "--frames", "2"]
    assert main([*given, "--size", "64x96", "--split", "4.m", "--profile", str(file)]) == Exit.FAILURE
    assert "calibrate for this network and this split" in capsys.readouterr().err
    assert main([*given, "--codec", "rle", "--profile", str(file)]) == Exit.USAGE
    assert "--profile is for the feature codec, not for rle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--link-kbps", "0"], "--link-kbps"),
        (["--link-kbps", "nan"], "--link-kbps"),
        (["--link-kbps", "1", "--rtt-ms", "-1"], "--rtt-ms"),
        (["--link-kbps", "1", "--detector-speed", "0"], "--detector-speed"),
        (["--link-kbps", "1", "--frames", "0"], "--frames"),
        (["--link-kbps", "1", "--split", "nowhere"], "nowhere"),
        (["--link-kbps", "1", "--codec", "nothing"], "nothing"),
    ],
)
def test_bad_flags_are_told(
    arguments: list[str], told: str, weights: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["advise", "--model", str(weights), "--size", "64x96", "--source", str(video), *arguments]
    assert main(given) == Exit.USAGE
    assert told in capsys.readouterr().err


def test_a_missing_source_is_told(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source in ("nothing.mp4", "demo:nothing=1"):
        assert (
            main(["advise", "--model", str(weights), "--link-kbps", "1", "--source", source]) == Exit.SOURCE
        )
    assert "nothing.mp4" in capsys.readouterr().err
