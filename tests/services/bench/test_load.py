"""A measurement under load, from the recording to the table."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import ClientSession

from services.access.tokens import new_token, token_hash
from services.bench import load
from services.bench.bare import bare_cost
from services.bench.recording import record_packets
from services.bench.settings import BenchLoadSettings
from services.errors import SettingsError
from services.loading import LoadedModel, find_network
from tests.certificates import HOST, Authority
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


async def test_measures_a_detector_with_tokens_and_tls(start_detector, weights, video, tmp_path):
    authority, file, token = Authority(tmp_path / "authority"), tmp_path / "token", new_token()
    file.write_text(token)
    tokens = (
        f'[[token]]\nname = "bench"\nhash = "{token_hash(token)}"\nroles = ["camera", "metrics"]\n'
        'streams = ["load*", "warm-up"]\n'
    )
    settings = {"model": str(weights), "source": str(video), "size": f"{SIZE[0]}x{SIZE[1]}", "fps": 50}
    settings |= {"streams": "1", "seconds": 0.2, "warm_up_s": 0.0, "frames": 2, "token_file": str(file)}
    async with start_detector(tokens=tokens, tls_cert=authority.sign()) as running:
        way = {"detector": f"wss://{HOST}:{running.port}", "tls_ca": str(authority.file)}
        report = await load.bench_load(BenchLoadSettings.load(settings | way))
    assert [row.streams for row in report.rows] == [1]


async def test_shares_streams_out_among_detectors(start_detector, weights, video):
    settings = BenchLoadSettings.load({
        "model": str(weights), "source": str(video), "size": f"{SIZE[0]}x{SIZE[1]}", "fps": 50,
        "seconds": 0.2, "warm_up_s": 0.0, "frames": 2,
    })  # fmt: skip
    network = LoadedModel("tiny", find_network(str(weights)))
    recorded = record_packets(settings, network)
    async with start_detector() as one, start_detector() as two:
        doors = [load.Door(one.url), load.Door(two.url)]
        figures = await load.measure(settings, recorded, bare_cost(network, recorded), doors, 3)
        names = [{stream["name"] for stream in await streams_of(running.http)} for running in (one, two)]
    assert names == [{"warm-up", "load0", "load2"}, {"warm-up", "load1"}]
    assert figures.streams == 3
    assert figures.detected_fps > 0


async def streams_of(url: str) -> list[dict[str, Any]]:
    async with ClientSession() as session, session.get(f"{url}/v1/streams") as answer:
        streams: list[dict[str, Any]] = (await answer.json())["streams"]
    return streams


def test_starts_no_others_beside_one_that_is_named():
    with pytest.raises(SettingsError, match="--detectors"):
        BenchLoadSettings.load({"detector": "ws://127.0.0.1:8765", "detectors": 2})


def test_sends_no_token_in_the_clear(tmp_path):
    file = tmp_path / "token"
    file.write_text(new_token())
    with pytest.raises(SettingsError, match="unencrypted"):
        BenchLoadSettings.load({"detector": "ws://detector.example:8765", "token_file": str(file)})
