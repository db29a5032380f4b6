"""The command: what it writes, that it goes on where it stopped, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest

from services.cli import main
from services.errors import Exit, SettingsError
from services.study import NAMES
from services.study.experiments import EXPERIMENTS
from services.study.networks import NetworkSpec
from services.study.record import RANDOM, RecordBook
from stream.errors import DownloadFailed

pytestmark = pytest.mark.timeout(600)  # whole studies: each of many networks, splits and codecs


def _study(name: str, out: Path, *arguments: str) -> int:
    return main(["study", name, "--out", str(out), "--size", "64x96", *arguments])


def _facts(out: Path) -> list[dict[str, Any]]:
    """The records without what may differ between two runs."""
    facts = [asdict(record) for record in RecordBook(out / "records.jsonl")]
    return [{key: value for key, value in one.items() if key != "times_ms"} for one in facts]


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Figures are made, but not written: matplotlib takes longer for a study's than all that is measured."""
    with (
        mock.patch("services.study.run.svg", return_value="<svg/>"),
        mock.patch("services.study.run.png", return_value=b"PNG"),
        mock.patch("services.study.run.jpeg", return_value=b"JPEG"),
        mock.patch("services.study.report.jpeg", return_value=b"JPEG"),
        mock.patch("services.study.report.page_svg", return_value="<svg/>"),
    ):
        yield


@pytest.fixture
def undrawn() -> Iterator[None]:
    with nothing_drawn():
        yield


def test_the_command_line_knows_every_experiment() -> None:
    assert tuple(EXPERIMENTS) == NAMES


@pytest.fixture
def everything(weights: Path, pictures: Path, other_pictures: Path, video: Path) -> tuple[str, ...]:
    """Arguments for a study of all experiments."""
    sources = ("--data", str(pictures), "--train", str(other_pictures), "--clip", str(video))
    return ("--model", str(weights), *sources, "--quick")


@pytest.mark.timeout(600)  # two whole studies
def test_a_whole_study_is_drawn_told_and_repeatable(
    everything: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _study("all", tmp_path / "one", *everything) == Exit.OK
    printed = capsys.readouterr().out
    page = (tmp_path / "one/report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org/", "").replace("http://purl.org/", "").replace(
        "http://creativecommons.org/", ""
    ), "the page needs nothing else"
    measured = {one["experiment"] for one in _facts(tmp_path / "one")}
    assert measured == set(NAMES)
    for name in NAMES:
        assert f'id="{name}"' in page
    drawings = [path.stem for path in (tmp_path / "one/figures").glob("*.svg")]
    assert {path.stem for path in (tmp_path / "one/figures").glob("*.png")} == set(drawings)
    assert {f"figure{number}" for number in range(1, 8)} <= set(drawings)
    (photographs,) = (tmp_path / "one/figures").glob("*.jpg")
    assert photographs.stem == "inversion"
    assert photographs.read_bytes().startswith(b"\xff\xd8")
    assert page.count('src="data:image/jpeg;base64,/9j/') == 1
    assert "1568.0" in printed
    assert "In a sentence" in page

    before = (tmp_path / "one/records.jsonl").read_bytes()
    with nothing_drawn():
        assert _study("all", tmp_path / "two", *everything) == Exit.OK
        assert _facts(tmp_path / "two") == _facts(tmp_path / "one")
        assert _study("all", tmp_path / "one", *everything) == Exit.OK
    assert (tmp_path / "one/records.jsonl").read_bytes() == before, "what is there is not measured again"
    assert _study("all", tmp_path / "one", "--from-records") == Exit.OK
    assert (tmp_path / "one/report.html").read_text() == page, (
        "drawn from the records alone, the same every time"
    )


@pytest.mark.usefixtures("undrawn")
def test_one_experiment_goes_on_where_it_stopped(weights: Path, pictures: Path, tmp_path: Path) -> None:
    given = ("--model", str(weights), "--data", str(pictures))
    assert _study("figure6", tmp_path, *given) == Exit.OK
    whole = (tmp_path / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "records.jsonl").write_text("".join(whole[:4]) + whole[4][:50])
    assert _study("figure6", tmp_path, *given) == Exit.OK
    again = (tmp_path / "records.jsonl").read_text().splitlines(keepends=True)
    assert [json.loads(line)["values"] for line in again] == [json.loads(line)["values"] for line in whole]


@pytest.mark.usefixtures("undrawn")
def test_quick_points_do_not_stand_for_whole_ones(weights: Path, pictures: Path, tmp_path: Path) -> None:
    given = ("--model", str(weights), "--data", str(pictures))
    assert _study("differential", tmp_path, *given, "--quick") == Exit.OK
    quick = len(_facts(tmp_path))
    assert _study("differential", tmp_path, *given) == Exit.OK
    records = _facts(tmp_path)
    assert [one["data"].startswith("quick ") for one in records] == [True] * quick + [False] * 28


def test_what_pictures_cannot_tell_is_left_out(weights: Path, tmp_path: Path) -> None:
    """One gray picture, and a clip of one frame."""
    (tmp_path / "gray").mkdir()
    gray = np.full((64, 96, 3), 114, np.uint8)
    cv2.imwrite(str(tmp_path / "gray/a.png"), gray)
    writer = cv2.VideoWriter(str(tmp_path / "one.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    writer.write(gray)
    writer.release()
    given = ("--data", str(tmp_path / "gray"), "--clip", str(tmp_path / "one.avi"), "--quick")
    assert _study("all", tmp_path / "out", "--model", "demo", *given) == Exit.OK
    measured = {one["experiment"] for one in _facts(tmp_path / "out")}
    assert {"figure1", "figure6", "split"} <= measured
    assert not {"figure5", "fft", "temporal"} & measured


@pytest.mark.usefixtures("undrawn")
def test_random_weights_are_stamped_and_have_no_accuracy(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--model", "yolov5n=random", "--data", str(pictures))
    assert _study("figure6", tmp_path, *given) == Exit.OK
    assert "random weights" in (tmp_path / "report.html").read_text()
    assert {one["weights"] for one in _facts(tmp_path)} == {RANDOM}
    assert _study("figure5", tmp_path / "other", *given) == Exit.USAGE
    assert "random weights" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_classifier_is_studied_on_folders_of_classes(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    import torchvision

    (tmp_path / "classes").mkdir()
    (tmp_path / "classes" / "7").symlink_to(pictures)
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "resnet.pth")
    given = (
        "--model", f"resnet50@8={tmp_path / 'resnet.pth'}", "--imagenet", str(tmp_path / "classes"), "--quick"
    )  # fmt: skip
    assert _study("figure5", tmp_path / "out", *given) == Exit.OK
    records = _facts(tmp_path / "out")
    assert {one["split"] for one in records} == {"8"}
    unquantized = next(one for one in records if one["settings"]["bits"] == 32)
    assert unquantized["values"]["agreement"] == 1.0
    assert set(unquantized["values"]) == {"top1", "agreement"}
    assert _study("figure4", tmp_path / "out", *given) == Exit.OK
    assert "top-1 accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("yolov5m", ("yolov5m", "4.m", None)),
        ("demo", ("demo", "4.m", None)),
        ("yolov5n@6", ("yolov5n", "6", None)),
        ("vgg16", ("vgg16", "17", None)),
        ("resnet50", ("resnet50", "4", None)),
        ("resnet152", ("resnet152", "16", None)),
        ("resnet50@8=a/b.pth", ("resnet50", "8", "a/b.pth")),
        ("resnet50=random", ("resnet50", "4", "random")),
        ("a/my.pt", ("my", "4.m", "a/my.pt")),
        ("mine@2=a/my.pt", ("mine", "2", "a/my.pt")),
    ],
)
def test_networks_are_written_in_many_ways(text: str, spec: tuple[str, str, str | None]) -> None:
    assert NetworkSpec.parse(text) == NetworkSpec(*spec)


@pytest.mark.parametrize("text", ["", "alexnet", "alexnet=random", "@4"])
def test_other_networks_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="resnet50"):
        NetworkSpec.parse(text)


@pytest.mark.parametrize("name", ["resnet50", "yolov5n"])
def test_weights_that_cannot_be_fetched_are_replaced_and_that_is_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Path:
        raise DownloadFailed("an address", Path("a file"), "no network")

    monkeypatch.setattr("services.torch_loading.find_weights", fail)
    monkeypatch.setattr("services.study.networks.find_classifier_weights", fail)
    notices: list[str] = []
    subject = NetworkSpec.parse(name).load(640, "cpu", notices.append)
    assert subject.weights == RANDOM
    assert "random weights" in notices[0]
    assert "no network" in notices[0]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--from-records",), Exit.USAGE, "records.jsonl"),
        (("--images", "0"), Exit.USAGE, "--images"),
        (("--model", "yolov5n=nothing.pt"), Exit.WEIGHTS, "nothing.pt"),
        (("--model", "yolov5n=random", "--data", "nowhere"), Exit.SOURCE, "nowhere"),
        (("--model", "yolov5n@nowhere=random"), Exit.USAGE, "nowhere"),
        (("--model", "yolov5n=random", "--imagenet", "nowhere"), Exit.USAGE, "classifier"),
        (("--model", "yolov5n=random", "--labels", "a.json"), Exit.USAGE, "--data"),
        (("--model", "yolov5n=random"), Exit.USAGE, "--data"),
    ],
)
def test_what_cannot_be_done_is_told(
    arguments: tuple[str, ...], code: Exit, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _study("figure6", tmp_path / "out", *arguments) == code
    assert told in capsys.readouterr().err


@pytest.mark.shared
@pytest.mark.usefixtures("undrawn")
def test_real_weights_reproduce_what_the_paper_says_of_yolo(
    yolov5n_weights: Path, shared_data: Path, tmp_path: Path
) -> None:
    given = (
        "--model",
        str(yolov5n_weights),
        "--data",
        str(shared_data / "coco/images/val2017"),
        "--images",
        "16",
    )
    assert main(["study", "figure5", "--out", str(tmp_path), *given]) == Exit.OK
    scores = {one["settings"]["bits"]: one["values"]["agreement"] for one in _facts(tmp_path)}
    assert scores[32] > 0.99
    assert scores[8] > 0.98
    assert scores[4] > 0.95
    assert 0.85 < scores[3] < scores[4]
    assert scores[2] < 0.7


@pytest.mark.parametrize("name", ["resnet50", "yolov5n"])
def test_a_network_is_on_the_device_that_was_asked_for(name: str) -> None:
    """On torch's meta device, which every machine has."""
    assert NetworkSpec.parse(f"{name}=random").load(64, "meta", print).device.type == "meta"
