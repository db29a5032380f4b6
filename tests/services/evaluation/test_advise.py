"""Advice for a link: what is measured, what is said, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from codec.feature.profile import Profile
from codec.packet import Stamp
from codec.rle.codec import Rle
from services.cli import main
from services.errors import Exit
from services.evaluation.advise import sentences
from services.evaluation.dataset import read_clip
from services.evaluation.delay import LinkModel, Placement, ranked
from stream.letterbox import Letterbox
from stream.network.engine import RunnableNetwork, open_network
from tests.services.calibrated import make_profile


@pytest.fixture(scope="module")
def network(weights: Path) -> RunnableNetwork:
    return open_network(weights)


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
    weights: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], network: RunnableNetwork
) -> None:
    out = tmp_path / "advice.json"
    code = main(
        ["advise", "--model", str(weights), "--link-kbps", "500", "--rtt-ms", "20", "--source", str(video),
         "--frames", "3", "--size", "64x96", "--split", "4.m", "--split", "9", "--json", str(out)]
    )  # fmt: skip
    assert code == Exit.OK
    printed = capsys.readouterr().out
    told = json.loads(out.read_text())
    assert [one["point"] for one in told["points"]] == list(network.split_points)
    for line in told["advice"]:
        assert line in printed
    assert {one["kind"] for one in told["choices"]} == {"split", "pixels", "all here"}
    chosen = next(one for one in told["choices"] if one["name"] == "split at 9, rle:bits=4")
    head, sizes = network.head("9", (64, 96)), []
    for picture in read_clip(video, max_frames=3).pictures:
        canvas = Letterbox((64, 96), (64, 96)).apply(picture.image)
        sizes.append(len(Rle(4).encoder(head.layout).encode(head(canvas), Stamp(0, 0, 1, 1)).data))
    assert chosen["bytes"] == pytest.approx(sum(sizes) / 3, abs=1)
    first = told["choices"][0]
    assert first["name"] in told["advice"][0]


def test_a_profile_counts_at_the_point_it_was_made_for(
    weights: Path, video: Path, tmp_path: Path, network: RunnableNetwork
) -> None:
    profile = make_profile(network.cut("9").layout((64, 96)))
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
    weights: Path, video: Path, tmp_path: Path, network: RunnableNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = make_profile(network.cut("9").layout((64, 96)))  # which does not tell its split point
    (file := tmp_path / "other.profile").write_bytes(profile.pack())
    given = ["advise", "--model", str(weights), "--link-kbps", "500", "--source", str(video), "--frames", "2"]
    assert main([*given, "--size", "64x96", "--split", "4.m", "--profile", str(file)]) == Exit.USAGE
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
