"""What is run where a card is lent has to run everywhere, or it rots."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import asdict

import pytest

from services.bench import device
from services.bench.device_figures import Correctness
from services.bench.settings import BenchDeviceSettings
from services.errors import NotMeasurable, SettingsError


def test_compares_measures_and_loads_a_cpu(weights, tmp_path, start_detector, monkeypatch):
    @asynccontextmanager
    async def detector_here(config):
        assert config.device == "cpu"
        async with start_detector() as running:  # a process of its own would import torch for many seconds
            yield running.url

    required = []
    monkeypatch.setattr("services.bench.load.local_detector", detector_here)
    monkeypatch.setattr(device, "require_agreement", required.append)
    out, page = tmp_path / "gpu.json", tmp_path / "gpu.md"
    settings = {"model": str(weights), "device": "cpu", "size": "64x96", "pictures": 1, "batches": "1,2"}
    settings |= {"batch_seconds": 0.01, "streams": "2", "fps": 20, "seconds": 0.2}
    device.run_bench_device(BenchDeviceSettings.load(settings | {"out": str(out), "table": str(page)}))
    record = json.loads(out.read_text())
    assert {(row["network"], row["split"]) for row in record["correctness"]} == {
        (precision, split) for precision in ("float32", "float16") for split in device.SPLITS
    }
    assert all(
        row["head"] < 1e-4 and row["logits"] < 1e-4
        for row in record["correctness"]
        if row["network"] == "float32"
    )
    assert [[asdict(row) for row in rows] for rows in required] == [record["correctness"]]
    assert [row["batch"] for row in record["speeds"]] == [1, 2] * 4
    assert record["load"]["rows"][0]["detected_fps"] > 0
    assert "no card" in record["device"]
    assert page.read_text().startswith(f"# {record['device']}\n")


def test_a_device_that_computes_something_else_is_no_result():
    good, bad = (Correctness("float32", "9", 0, 0, agreement) for agreement in (1.0, 0.98))
    half = Correctness("float16", "9", 0, 0, 0.98)
    device.require_agreement([good, half])
    with pytest.raises(NotMeasurable, match=r"split at 9 the device agrees 0\.980"):
        device.require_agreement([good, bad])


def test_a_card_that_is_not_there_is_told_at_once(weights, monkeypatch):
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="--device: no 'cuda'"):
        device.run_bench_device(BenchDeviceSettings.load({"model": str(weights), "device": "cuda"}))
