"""A camera that keeps what it sends, and one that only does that."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from services.camera.service import Camera
from services.commands.record_settings import RecordSettings
from services.errors import NothingDetected, SettingsError
from services.recording.folder import segment_files
from services.recording.segment_writer import LOSS_CAUSES
from stream.frame import Frame
from stream.session.messages import FEATURES_PROTOCOL
from tests.recordings import read
from tests.services.camera.sources import END, picture, scripted
from tests.services.clips import FRAMES, SIZE
from tests.services.counts import balances
from tests.services.fake_detector import serving
from tests.services.waiting import LIVENESS_S, until


def kept(folder) -> list[list[bytes]]:
    return [[packet.data for packet in read(file.path.read_bytes())[1]] for file in segment_files(folder)]


def value(camera: Camera, name: str, **labels: str) -> float | None:
    return camera.statistics.metrics.registry.get_sample_value(f"splitcast_camera_{name}", labels)


async def test_what_is_recorded_is_what_was_sent(make_camera, tmp_path):
    """Byte for byte, and the hello but for its secret."""
    hellos, sent = [], []

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        while (hello := await ws.receive_json())["type"] == "waiting":
            pass  # a camera that takes long to be ready
        hellos.append(hello)
        await ws.send_json({"type": "welcome", "window": 2, "max_packet_bytes": 2**20})
        async for message in ws:
            if isinstance(message.data, bytes):
                sent.append(message.data)
                await ws.send_json({"type": "reject", "reason": "error"})
        return ws

    async with serving(handle) as url:
        camera = make_camera(url, record=str(tmp_path))
        with pytest.raises(NothingDetected):
            await camera.run()
    (file,) = segment_files(tmp_path)
    segment, packets = read(file.path.read_bytes())
    assert [packet.data for packet in packets] == sent
    assert len(sent) == FRAMES
    assert hellos[0].pop("session")
    assert json.loads(segment.hello.model_dump_json(exclude={"session"})) == hellos[0]
    assert segment.ended
    assert value(camera, "recorded_packets_total") == FRAMES
    assert value(camera, "recorded_bytes_total") == sum(map(len, sent))


async def test_a_folder_that_cannot_be_written_stops_no_detection(
    start_detector, make_camera, tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    async with start_detector() as running:
        camera = make_camera(running.url, record=str(tmp_path / "file" / "folder"))
        await camera.run()
    assert camera.statistics.frame_counts.detected == FRAMES
    assert value(camera, "recording_lost_packets_total", reason="unwritable") == FRAMES
    assert "not recorded" in capsys.readouterr().out


def test_every_reason_is_there_from_the_start(make_camera):
    async def made():
        return make_camera("ws://127.0.0.1:1")

    camera = asyncio.run(made())
    assert all(value(camera, "recording_lost_packets_total", reason=cause) == 0 for cause in LOSS_CAUSES)


def record_settings(folder, weights, **flags) -> RecordSettings:
    defaults = {"source": "scripted", "model": str(weights), "size": f"{SIZE[0]}x{SIZE[1]}", "stream": "door"}
    return RecordSettings.load({**defaults, "out": str(folder), "codec": "rle:bits=6,temporal=true", **flags})


async def test_a_live_source_is_recorded_without_a_detector(monkeypatch, weights, tmp_path):
    """Every frame is accounted for: recorded, or dropped where a newer one came."""
    sources = scripted(monkeypatch, live=True)
    camera = Camera(record_settings(tmp_path, weights).camera, has_detector=False)
    running = asyncio.ensure_future(camera.run())
    counts = camera.statistics.frame_counts
    for number in range(1, 6):
        sources[0].play(picture(*SIZE))
        await until(lambda number=number: counts.recorded >= number or counts.dropped_total)
        assert balances(camera)
    sources[0].play(END)
    await asyncio.wait_for(running, LIVENESS_S)
    assert counts.captured == counts.recorded + counts.dropped_total
    assert [len(file) for file in kept(tmp_path)] == [counts.recorded]
    assert camera.recorded == (counts.recorded, 0)


async def test_pictures_of_another_size_go_on_in_a_new_file(monkeypatch, weights, tmp_path):
    sources = scripted(monkeypatch, live=False)
    config = record_settings(tmp_path, weights, size="96").camera
    camera = Camera(config, has_detector=False)
    frames: list[Frame] = [picture(64, 96)] * 3 + [picture(96, 64)] * 5
    sources[0].play(*frames, END)
    await asyncio.wait_for(camera.run(), LIVENESS_S)
    assert camera.statistics.frame_counts.recorded == 8
    assert sum(map(len, kept(tmp_path))) == 8
    assert [read(file.path.read_bytes())[0].hello.canvas for file in segment_files(tmp_path)] == [
        (64, 96),
        (96, 64),
    ]


async def test_a_stop_ends_the_file(monkeypatch, weights, tmp_path):
    sources = scripted(monkeypatch, live=True)
    camera = Camera(record_settings(tmp_path, weights).camera, has_detector=False)
    running = asyncio.ensure_future(camera.run())
    sources[0].play(picture(*SIZE))
    await until(lambda: camera.statistics.frame_counts.recorded)
    camera.stop()
    await asyncio.wait_for(running, LIVENESS_S)
    (file,) = segment_files(tmp_path)
    segment, packets = read(file.path.read_bytes())
    assert segment.ended
    assert len(packets) == camera.statistics.frame_counts.recorded
    assert balances(camera)


def test_a_recording_says_nothing_of_a_detector(tmp_path, weights):
    with pytest.raises(SettingsError, match="detector"):
        record_settings(tmp_path, weights, detector="ws://127.0.0.1:1")
    with pytest.raises(SettingsError, match="more than half of --record-mib"):
        record_settings(tmp_path, weights, record_mib=10, record_segment_mib=6)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="--out: cannot make the folder"):
        record_settings(tmp_path / "file" / "x", weights).check_machine()
