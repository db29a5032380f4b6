"""What so many cameras need, by arithmetic."""

from __future__ import annotations

import json
import math

import pytest

from services.bench.settings import BenchSizingSettings
from services.bench.sizing import LoadRecord, needs, run_bench_sizing
from services.camera.metrics import CameraMetrics
from services.detector.metrics import DetectorMetrics
from services.errors import NotMeasurable, SettingsError
from tests.paths import ROOT

ROW = {"streams": 4, "held": 4, "cpu_ms": 20.0, "beside_ms": 1.0, "stream_mb": 10.0, "resident_mb": 340.0}
RECORD = {
    "network": "demo",
    "codec": "feature:quality=6,temporal=true",
    "kb_per_frame": 5.0,
    "machine": {"processor": "one", "isa": "avx2", "cores": 2},
    "fps": 5.0,
    "rows": [
        {**ROW, "streams": 2, "held": 2, "cpu_ms": 99.0},
        ROW,
        {**ROW, "streams": 8, "held": 7, "cpu_ms": 1.0},  # too many
    ],
}


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "load.json"
    path.write_text(json.dumps(RECORD))
    return path


def settings(record, **given):
    return BenchSizingSettings.load({"load_record": record, **given})


def test_what_a_camera_takes_is_that_of_the_most_streams_that_were_held(record):
    need = needs(LoadRecord.read(record), 100, settings(record, cores=4, busy=0.5))
    assert need.frames_s == 500
    assert need.cores == pytest.approx(500 * 0.020)
    assert need.up_mbit_s == pytest.approx(500 * 5015 * 8 / 1e6)
    assert need.down_mbit_s == pytest.approx(500 * 17 * 8 / 1e6)
    assert need.detectors == 100 / 20  # 4 cores x .5 / (5 fps x 20 ms)
    assert need.memory_gb == pytest.approx(5 * 0.3 + 100 * 0.01)
    assert need.balancers == 1


def test_more_cores_than_an_event_loop_can_feed_are_of_no_use(record):
    need = needs(LoadRecord.read(record), 1000, settings(record, cores=1000))
    assert need.detectors == 1000 / 100  # half a core of 1 ms a frame, at 5 fps


def test_one_detector_needs_no_balancer(record):
    need = needs(LoadRecord.read(record), 1, settings(record))
    assert (need.detectors, need.balancers) == (1, 0)


def test_a_faster_camera_needs_more(record):
    read = LoadRecord.read(record)
    slow, fast = needs(read, 1000, settings(record)), needs(read, 1000, settings(record, fps=10))
    assert fast.cores == 2 * slow.cores
    assert fast.detectors >= 2 * slow.detectors - 1


def test_series_are_those_that_exist(record):
    read = LoadRecord.read(record)
    brief, full = (needs(read, 10, settings(record, metrics=metrics)).series for metrics in ("brief", "full"))
    whole = sum(len(metric.samples) for metric in CameraMetrics().registry.collect())
    assert full - brief == 10 * (whole - 30)
    detector = sum(len(metric.samples) for metric in DetectorMetrics().registry.collect())
    assert brief == detector + 10 * (15 + 30)


def test_prints_and_writes_a_line_for_each_number_of_cameras(record, tmp_path, capsys):
    out = tmp_path / "sizing.md"
    run_bench_sizing(settings(record, cameras="1,100000", table=out))
    lines = [line for line in out.read_text().splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["1", "100,000"]
    assert lines[2] in capsys.readouterr().out


def test_the_page_has_what_the_record_in_the_repository_gives(capsys):
    """The table of docs/sizing.md is what the command prints there."""
    run_bench_sizing(settings(ROOT / "docs" / "results" / "load.json"))
    page = (ROOT / "docs" / "sizing.md").read_text()
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("|"):
            assert line in page


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", json.dumps({**RECORD, "rows": []}), json.dumps({**RECORD, "fps": 0}), "\xff" * 9],
)
def test_refuses_what_is_no_record(tmp_path, content):
    path = tmp_path / "load.json"
    path.write_text(content)
    with pytest.raises(NotMeasurable, match=r"load\.json"):
        LoadRecord.read(path)


@pytest.mark.parametrize("cameras", ["", "0", "1,,2", "-1", "1e3", str(10**9)])
def test_refuses_what_is_no_number_of_cameras(record, cameras):
    with pytest.raises(SettingsError, match="--cameras"):
        settings(record, cameras=cameras)


def test_nothing_is_less_than_it_needs(record):
    read = LoadRecord.read(record)
    for cameras in (1, 7, 10**8):
        need = needs(read, cameras, settings(record, cores=1, busy=0.1))
        assert need.detectors >= math.ceil(need.cores / 1)
