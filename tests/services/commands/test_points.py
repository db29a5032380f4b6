"""The table of split points agrees with the paper, and reads the same as JSON."""

from __future__ import annotations

import json

import pytest

from services.commands.points import find_points, run_points
from services.commands.settings import PointsSettings
from stream.errors import InvalidSize, UnknownModel
from tests.stream.network import legacy


def as_json(capsys, model: str, size: tuple[int, int]) -> dict:
    run_points(PointsSettings.load({"model": model, "size": f"{size[0]}x{size[1]}", "json": True}))
    return json.loads(capsys.readouterr().out)


def test_the_papers_cut_in_json(capsys):
    """1800 KiB a tensor, which the paper calls kB."""
    table = as_json(capsys, "yolov5m", (480, 640))
    assert (table["model"], table["size"]) == ("yolov5m", [480, 640])
    (point,) = [point for point in table["points"] if point["point"] == "4.m"]
    assert point["tensors"] == [
        {"name": "4.cv2", "shape": [96, 60, 80], "raw_kb": 1843.2},
        {"name": "4.m", "shape": [96, 60, 80], "raw_kb": 1843.2},
    ]
    assert point["raw_kb"] == 3686.4
    assert 0.2 < point["flops_share"] < 0.4


def test_every_point_is_in_the_table(capsys):
    run_points(PointsSettings.load({"model": "yolov5nu", "size": "64x96"}))
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert [name for name in shown if name] == [point.name for point in find_points("yolov5nu", (64, 96))]


@pytest.mark.shared
def test_a_file_gives_the_table_of_its_name(capsys, yolov5n_weights):
    from_file = as_json(capsys, str(yolov5n_weights), (480, 640))["points"]
    assert from_file == as_json(capsys, "yolov5n", (480, 640))["points"]


def test_sizes_follow_the_networks_stride(capsys, tmp_path):
    path = legacy.save(legacy.Model(legacy.deep_description(4, classes=2)), tmp_path / "p6.pt")
    assert as_json(capsys, str(path), (128, 192))["points"][-1]["point"] == "32"
    with pytest.raises(InvalidSize, match="multiples of 64"):
        as_json(capsys, str(path), (96, 192))


def test_an_unknown_model_is_refused():
    with pytest.raises(UnknownModel):
        run_points(PointsSettings.load({"model": "yolov8n"}))
