"""Tables I and II have the paper's numbers, and the user's own beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.study.experiments.tables import table1, table2
from services.study.record import RecordBook
from services.study.study import Study
from tests.services.study.records import StudyFactory, record


def test_table_1_has_the_papers_sizes(make_study: StudyFactory, pictures: Path) -> None:
    study = make_study()
    table1.measure(study)
    rows = {row[0]: row[1:] for row in table1.present(study.book.of("table1")).tables[0].rows}
    sizes = {
        "vgg16, layer 10": "1568.0",
        "vgg16, layer 17": "784.0",
        "resnet50, layer 4": "784.0",
        "resnet50, layer 8": "1568.0",
        "resnet152, layer 16": "784.0",
        "Input tensor": "588.0",
    }
    assert {name: rows[name][0] for name in sizes} == sizes
    assert {name: rows[name][1] for name in sizes} == sizes, "the paper's own, as printed there"
    files = [path.stat().st_size for path in pictures.iterdir()]
    jpeg = sum(files) / len(files)
    assert rows["JPEG files: pictures0"][0] == f"{jpeg / 1024:.1f}"
    assert rows["vgg16, layer 10"][2:] == [f"{1568 * 1024 / jpeg:.2f}", f"{1568 / 588:.2f}"]


def test_table_2_has_the_papers_size_and_the_whole_cut(make_study: StudyFactory) -> None:
    study = make_study(images=None)
    table2.measure(study)
    rows = {row[0]: row[1:] for row in table2.present(study.book.of("table2")).tables[0].rows}
    assert rows["yolov5m, layer 4.m"] == ["1800.0", "1800.0", "", "3600.0", "2.00"]
    # width multiples .25, .5, .75, 1, 1.25 of 128 channels
    assert [rows[f"yolov5{scale}, layer 4.m"][0] for scale in "nslx"] == [
        "600.0",
        "1200.0",
        "2400.0",
        "3000.0",
    ]


def test_a_size_that_differs_from_the_papers_is_told(make_study: StudyFactory) -> None:
    study = make_study(images=None)
    table2.measure(study)
    same = table2.present(study.book.of("table2")).claims[0]
    assert "the same" in same.verdict
    settings = {"network": "yolov5m", "layer": "4.m", "size": [480, 640]}
    wrong = record("table2", settings, {"shape": [1], "bytes": 4, "cut_bytes": 8}, network="", weights="")
    assert "differ" in table2.present([wrong]).claims[0].verdict


@pytest.mark.parametrize(("kib", "verdict"), [(150.0, "Alike"), (80.0, "Other pictures")])
def test_jpeg_files_are_compared_with_the_papers(kib: float, verdict: str) -> None:
    claim = table2.present([record("table2", {"row": "jpeg"}, {"bytes": kib * 1024})]).claims[0]
    assert f"{kib} KiB" in claim.ours
    assert claim.verdict.startswith(verdict)


def test_needs_neither_networks_nor_pictures_and_measures_once(tmp_path: Path) -> None:
    study = Study(RecordBook(tmp_path / "records.jsonl"), [])
    for experiment in (table1, table2):
        experiment.measure(study)
        experiment.measure(study)
    assert len(study.book.of("table1")) == 5
    assert len(study.book.of("table2")) == 5
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 10
