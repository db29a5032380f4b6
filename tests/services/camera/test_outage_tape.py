"""A camera that keeps what an outage would lose."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from services.camera.settings import CameraSettings
from services.chaos.service import chaos_proxy
from services.chaos.settings import Address
from services.errors import SettingsError
from services.recording.folder import segment_files
from services.recording.segment_writer import SegmentWriter
from stream.session.messages import FEATURES_PROTOCOL
from stream.sources.base import SourceConnected
from tests.recordings import read
from tests.services.camera.detectors import ObedientDetector
from tests.services.camera.sources import END, picture
from tests.services.camera.test_outage import NOWHERE, outage_of, play_one_by_one  # noqa: F401 - a fixture
from tests.services.camera.test_recording import value
from tests.services.clips import SIZE
from tests.services.counts import balances
from tests.services.fake_detector import serving
from tests.services.waiting import LIVENESS_S, until

CODEC = "rle:bits=6,temporal=true"


@pytest.fixture
def keeping(outage_of, tmp_path):  # noqa: F811
    """Makes a camera that keeps, of a scripted live source."""

    def make(url=NOWHERE, **settings):
        flags = {"record": str(tmp_path / "kept"), "record_when": "disconnected", "codec": CODEC, **settings}
        return outage_of(url=url, **flags)

    return make


def address_of(url: str) -> Address:
    parts = urlsplit(url)
    return Address(parts.hostname, parts.port)


def captured(folder) -> list[list[int]]:
    """Times of the packets of each file."""
    return [
        [packet.captured_ns for packet in read(file.path.read_bytes())[1]] for file in segment_files(folder)
    ]


async def test_every_frame_of_an_outage_is_kept(keeping, tmp_path):
    camera, source = keeping()
    playing = asyncio.ensure_future(camera.run())
    frames = [picture() for _ in range(5)]
    await play_one_by_one(camera, source, frames)
    counts = camera.statistics.frame_counts
    assert counts.recorded == counts.captured == 5
    assert balances(camera)
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)
    assert captured(tmp_path / "kept") == [[frame.captured_ns for frame in frames]]
    (file,) = segment_files(tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == [file.path]  # no lock is left
    segment, packets = read(file.path.read_bytes())
    assert segment.ended
    assert segment.hello.late
    assert [packet.keyframe for packet in packets] == [True] + [False] * 4
    assert camera.tape.backlog.account == {"kept": 5, "waiting": 5}
    assert value(camera, "frames_recorded_total") == 5
    assert value(camera, "late_kept_packets_total") == value(camera, "late_waiting_packets") == 5
    assert camera.statistics.report("scripted").recorded == 5


async def test_each_outage_has_its_files_and_what_was_sent_is_in_none(keeping, tmp_path):
    """A file is ended as soon as there is a detector, and can be sent."""
    detector, kept = ObedientDetector(), []
    async with serving(detector.handle) as url, chaos_proxy(address_of(url)) as proxy:
        camera, source = keeping(proxy.url)
        connected, counts = camera.statistics.connected, camera.statistics.frame_counts
        playing = asyncio.ensure_future(camera.run())
        source.play(SourceConnected(SIZE[1], SIZE[0]))
        for outage in range(3):
            await until(lambda: connected["detector"])
            await play_one_by_one(camera, source, [picture() for _ in range(2)])
            await until(lambda: all(file.ended for file in camera.tape.backlog._files.values()))
            assert len(camera.tape.backlog._files) == outage
            assert counts.detected == 2 * (outage + 1)
            cut = proxy.begin("reset:duration=3600")
            await until(lambda: connected["detector"] is False and camera._outage.takes)
            kept.append([picture() for _ in range(2)])
            await play_one_by_one(camera, source, kept[-1])
            proxy.end(cut)
        source.play(END)
        await asyncio.wait_for(playing, LIVENESS_S)
    assert captured(tmp_path / "kept") == [[frame.captured_ns for frame in outage] for outage in kept]
    assert (counts.detected, counts.recorded, counts.dropped_total) == (6, 6, 0)


async def test_frames_that_were_on_their_way_are_kept(keeping, tmp_path):
    """They are the first of the outage, in order."""

    came: list[web.Request] = []

    async def handle(request: web.Request) -> web.WebSocketResponse:
        if came:  # the outage lasts: whoever comes back takes the next frame
            raise web.HTTPServiceUnavailable
        came.append(request)
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        while (await ws.receive_json())["type"] == "waiting":
            pass
        await ws.send_json({"type": "welcome", "window": 2, "max_packet_bytes": 2**20})
        for _ in range(2):
            await ws.receive_bytes()
        await ws.close(code=1011)
        return ws

    async with serving(handle) as url:
        camera, source = keeping(url)
        playing = asyncio.ensure_future(camera.run())
        source.play(SourceConnected(SIZE[1], SIZE[0]))
        await until(lambda: camera.statistics.connected["detector"])
        lost = []
        for sent in (1, 2):
            lost.append(picture())
            source.play(lost[-1])
            await until(lambda sent=sent: camera.statistics.totals.packets == sent)
        await until(lambda: camera.statistics.frame_counts.recorded == 2)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert captured(tmp_path / "kept") == [[frame.captured_ns for frame in lost]]
    assert not camera.statistics.frame_counts.dropped


async def test_what_an_outage_keeps_is_never_too_old(keeping, tmp_path, monkeypatch):
    """A frame waits for the first pipeline, for example."""
    camera, source = keeping()
    monkeypatch.setattr(camera, "config", camera.config.model_copy(update={"silence_s": 0.0}))
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture() for _ in range(3)])
    assert camera.statistics.frame_counts.recorded == 3
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_what_is_too_old_goes_to_no_detector_though_an_outage_would_keep_it(keeping):
    camera, _ = keeping()
    old, new = picture(age_s=2 * LIVENESS_S), picture()
    for frame in (old, new):
        camera.statistics.capture(frame.captured_ns)
        camera._requeued.append(frame)
    assert await camera._next_frame_to_send() is new
    assert camera.statistics.frame_counts.dropped == {("grab", "stale"): 1}


async def test_pictures_of_another_size_go_to_another_file(keeping, tmp_path):
    camera, source = keeping(size="96")
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture(64, 96)])
    await play_one_by_one(camera, source, [picture(96, 64) for _ in range(4)])
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)
    read_files = [read(file.path.read_bytes()) for file in segment_files(tmp_path / "kept")]
    found = [(segment.hello.canvas, [packet.keyframe for packet in coded]) for segment, coded in read_files]
    assert found == [((64, 96), [True, False, False]), ((96, 64), [True, False])]


async def test_a_disk_that_has_recovered_gets_a_keyframe_and_what_follows(keeping, monkeypatch, tmp_path):
    append, refuses = SegmentWriter._append, [False]

    def append_or_refuse(self, data):
        if refuses[0]:
            raise OSError(28, "no")
        append(self, data)

    monkeypatch.setattr(SegmentWriter, "_append", append_or_refuse)
    camera, source = keeping(codec=f"{CODEC},keyframe_interval=1000000")
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture()])
    await until(lambda: value(camera, "recorded_packets_total") == 1)
    refuses[0] = True
    await play_one_by_one(camera, source, [picture()])
    await until(lambda: value(camera, "recording_lost_packets_total", reason="disk_full") == 1)
    refuses[0] = False
    async with asyncio.timeout(LIVENESS_S):
        while value(camera, "recorded_packets_total") < 3:
            await play_one_by_one(camera, source, [picture()])
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)
    before, after = (read(file.path.read_bytes())[1] for file in segment_files(tmp_path / "kept"))
    assert len(before) == 1
    assert [packet.keyframe for packet in after[:2]] == [True, False]


@pytest.mark.parametrize(("number", "cause"), [(28, "disk_full"), (13, "unwritable")])
async def test_what_the_disk_does_not_take_is_counted(keeping, monkeypatch, number, cause):
    def refuse(self, head):
        raise OSError(number, "no")

    monkeypatch.setattr(SegmentWriter, "_open", refuse)
    camera, source = keeping()
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture() for _ in range(3)])
    await until(lambda: value(camera, "recording_lost_packets_total", reason=cause) == 3)
    assert camera.tape.backlog.account == {"kept": 0, "waiting": 0}
    assert balances(camera)
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_a_file_is_refused_for_it_waits_for_the_detector(make_camera, tmp_path):
    flags = {"record": str(tmp_path), "record_when": "disconnected"}
    with pytest.raises(SettingsError, match="--record-when disconnected: a file waits"):
        make_camera(NOWHERE, **flags)
    assert make_camera(NOWHERE, realtime=True, **flags).tape


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"record_when": "disconnected"}, "name the folder .* with --record$"),
        ({"record_when": "disconnected", "record": "x", "stream": "d" * 60}, "--stream: 60 .* at most 59"),
        ({"record_when": "later"}, "--record-when: "),
        ({"stream": "door.late"}, r"--stream: names that end with \.late"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        CameraSettings.load({"source": "0", **settings})


def test_the_longest_name_is_taken():
    CameraSettings.load({"source": "0", "record_when": "disconnected", "record": "x", "stream": "d" * 59})
    assert CameraSettings.load({"source": "0", "stream": "d" * 64}).record_when == "always"
