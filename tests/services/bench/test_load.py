"""A measurement under load, from the recording to the table."""

from __future__ import annotations

import json

from services.bench import load
from services.bench.settings import BenchLoadSettings
from tests.services.clips import SIZE


async def test_measures_streams_at_a_real_detector(start_detector, weights, video, tmp_path, monkeypatch):
    settings = {"model": str(weights), "source": str(video), "size": f"{SIZE[0]}x{SIZE[1]}", "fps": 50}
    out, table = tmp_path / "load.json", tmp_path / "load.md"
    settings |= {"streams": "1,2", "seconds": 0.2, "warm_up_s": 0.0, "frames": 2}
    async with start_detector() as running:
        settings = BenchLoadSettings.load(
            settings | {"detector": running.url, "out": str(out), "table": str(table)}
        )
        await load.run(settings)
    record = json.loads(out.read_text())
    assert [row["streams"] for row in record["rows"]] == [1, 2]
    for row in record["rows"]:
        assert row["detected_fps"] > 0
        assert row["latency_ms"]["p50"] > 0
    assert record["bare"]["tail_ms"] > 0
    lines = table.read_text().splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    assert len(rows) == 4
    assert {len(row) for row in rows} == {13}
