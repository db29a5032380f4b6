"""A replay to a real detector: what a camera sent, detected again, and the same each time."""

from __future__ import annotations

import asyncio
import hashlib
import json
from types import SimpleNamespace

import pytest
from aiohttp import web

from codec.packet import is_difference
from services.access.tokens import new_token
from services.camera.service import Camera
from services.chaos.service import chaos_proxy
from services.commands.record_settings import RecordSettings
from services.errors import DetectorRefused, NothingDetected
from services.loading import find_network
from services.recording.folder import segment_files
from services.replay import connection as module
from services.replay.line import MAX_GAP_S, Line
from services.replay.replay import readable, replay, run_replay
from services.replay.settings import ReplaySettings
from stream.errors import ConnectionLost, NoRecording
from stream.recording.records import RecordType, pack_packet, pack_record
from stream.session.messages import FEATURES_PROTOCOL
from tests.certificates import HOST, Authority
from tests.recordings import read
from tests.services.calibrated import make_profile
from tests.services.clips import FRAMES, SIZE, write_video
from tests.services.detector.test_gate import entry
from tests.services.fake_detector import serving
from tests.services.subscribing import subscribed
from tests.services.waiting import LIVENESS_S, until

CODEC = "rle:bits=6,temporal=true,keyframe_interval=8"


async def recorded(folder, weights, source, **settings):
    """A folder with the recording of a file."""
    flags = {"source": str(source), "model": str(weights), "size": f"{SIZE[0]}x{SIZE[1]}", "stream": "door"}
    config = RecordSettings.load({**flags, "codec": CODEC, "out": str(folder), **settings})
    camera = Camera(config.camera, has_detector=False)
    await camera.run()
    assert camera.recorded[1] == 0
    return folder


@pytest.fixture(scope="module")
def recording(tmp_path_factory, weights, video):
    """The clip's FRAMES packets, in one file."""
    return asyncio.run(recorded(tmp_path_factory.mktemp("recording"), weights, video))


def settings(path, running, **flags) -> ReplaySettings:
    defaults = {"recording": path, "detector": running.url, "speed": "flat-out", "stream": "replay"}
    return ReplaySettings.load({**defaults, **flags})


def by_frame(messages: list[dict]) -> list:
    return [[message["predictions"], message["image"]] for message in messages]


async def test_every_frame_of_a_file_is_recorded_and_replayed(start_detector, recording):
    async with start_detector() as running:
        ledger = await replay(settings(recording, running))
    assert (ledger.packets, ledger.detected, ledger.sent) == (FRAMES, FRAMES, FRAMES)
    assert ledger.objects > 0
    assert f"{FRAMES} packets: {FRAMES} detected" in readable(ledger, 1.0)[0]


async def test_a_replay_detects_what_the_camera_had_detected(start_detector, make_camera, tmp_path):
    """Over a recording of many files, to another detector, and each replay has the same hash."""
    live, again = [], []
    async with start_detector() as running:
        watching = await subscribed(running, running.url, live, "door")
        camera = make_camera(
            running.url,
            record=str(tmp_path),
            record_segment_s=1e-6,
            codec="feature:quality=6",
            silence_s=LIVENESS_S,
        )
        await camera.run()
        await until(lambda: len(live) == FRAMES)
    await watching
    assert len(segment_files(tmp_path)) > 1  # each begins with a keyframe that the recorder asked for
    async with start_detector() as running:
        watching = await subscribed(running, running.url, again, "replay")
        first = await replay(settings(tmp_path, running))
        second = await replay(settings(tmp_path, running, speed=50.0))
        await until(lambda: len(again) == 2 * FRAMES)
    await watching
    assert by_frame(again[:FRAMES]) == by_frame(live)
    assert first.digest.text == second.digest.text != hashlib.sha256().hexdigest()
    # The live ones go by the clocks of each report, which a busy machine does not read at quite one instant.
    assert [message["captured_at"] for message in again[:FRAMES]] == pytest.approx(
        [message["captured_at"] for message in live], abs=0.1
    )
    assert [message["frame"] for message in again[:FRAMES]] == list(range(FRAMES))


async def test_a_recording_under_rotation_replays_whole(start_detector, weights, tmp_path):
    video = write_video(tmp_path / "long.avi", 90)
    folder = await recorded(tmp_path / "out", weights, video, record_mib=4, record_segment_mib=0.002)
    assert len(segment_files(folder)) > 5
    async with start_detector() as running:
        whole = await replay(settings(folder, running))
        parts = [await replay(settings(file.path, running)) for file in segment_files(folder)]
    assert whole.packets == whole.detected == sum(part.packets for part in parts) == 90
    assert whole.objects == sum(part.objects for part in parts)


class Gate:
    """Lets so many packets go out, in place of their time."""

    def __init__(self) -> None:
        self.open_to = 0
        self.reached, self._opened = asyncio.Event(), asyncio.Event()

    def open(self, packets: int) -> None:
        self.open_to = packets
        self.reached.clear()
        self._opened.set()

    async def until_due(self, packet) -> None:
        while packet.number >= self.open_to:
            self._opened.clear()
            self.reached.set()
            await self._opened.wait()


async def test_a_detector_that_is_lost_costs_no_packet(start_detector, weights, tmp_path, monkeypatch):
    """Connections are cut, also that of the detections: packets come again, and the hash is the same."""
    gate, packets = Gate(), 120
    folder = await recorded(tmp_path / "out", weights, write_video(tmp_path / "long.avi", packets))
    async with start_detector() as running, asyncio.timeout(LIVENESS_S):
        calm = await replay(settings(folder, running))
        monkeypatch.setattr(Line, "until_due", gate.until_due)
        async with chaos_proxy(running.address) as proxy:
            replaying = asyncio.ensure_future(replay(settings(folder, running, detector=proxy.url)))
            for connections, end in ((2, 30), (4, 60), (6, 90)):
                gate.open(end)
                await gate.reached.wait()
                assert proxy.report.accepted == connections
                proxy.begin("reset")
            gate.open(packets)
            stormy = await replaying
    assert proxy.report.accepted == 8
    assert (stormy.packets, stormy.detected, stormy.pending) == (packets, packets, 0)
    assert stormy.digest.text == calm.digest.text


def rewritten(recording, folder, change) -> None:
    """The recording with other packets, as `change` makes them of the old ones."""
    (file,) = segment_files(recording)
    data = file.path.read_bytes()
    segment, packets = read(data)
    changed = [
        pack_packet(packet, 10**12 + at) for at, packet in enumerate(change([p.data for p in packets]))
    ]
    target = folder / file.path.name
    target.write_bytes(data[: segment.first_packet] + b"".join(changed) + pack_record(RecordType.END))


def damaged(packet: bytes) -> bytes:
    """A difference that says of itself that it is right: its last section is missing."""
    return packet[: len(packet) // 2] + packet[-4:]


async def test_packets_that_no_detector_takes_are_counted_and_the_next_keyframe_goes_on(
    start_detector, recording, tmp_path
):
    """A packet is damaged in the first of three chains of eight, eight and four."""
    rewritten(recording, tmp_path, lambda packets: [*packets[:3], damaged(packets[3]), *packets[4:]])
    async with start_detector() as running:
        ledger = await replay(settings(tmp_path, running))
        once_more = await replay(settings(tmp_path, running))
    assert ledger.packets == FRAMES
    assert ledger.detected == 3 + FRAMES - 8
    assert ledger.rejected == {"corrupt": 1, "missing_reference": 4}
    assert ledger.pending == 0
    assert once_more.digest.text == ledger.digest.text


async def test_a_detector_of_other_weights_refuses(start_detector, recording, other_weights):
    async with start_detector(model=str(other_weights)) as running:
        with pytest.raises(DetectorRefused, match="weights"):
            await replay(settings(recording, running))


async def test_a_keyframe_that_is_asked_for_comes_next(recording):
    """The one on which the next packet hangs, once more, on the same connection."""
    sent, hellos = [], []

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        hellos.append(await ws.receive_json())
        await ws.send_json({"type": "welcome", "window": 1, "max_packet_bytes": 2**20})
        async for message in ws:
            if isinstance(message.data, bytes):
                sent.append(message.data)
                if len(sent) == 4:
                    await ws.send_json({"type": "keyframe"})
                await ws.send_json({"type": "reject", "reason": "error"})
        return ws

    async with serving(handle) as url, asyncio.timeout(LIVENESS_S):
        flags = {"recording": recording, "detector": url, "speed": "flat-out", "no_digest": True}
        ledger = await replay(ReplaySettings.load(flags))
    assert [number for number, data in enumerate(sent) if not is_difference(data)] == [0, 4, 12, 20]
    assert (ledger.packets, ledger.sent, len(hellos)) == (FRAMES, FRAMES + 4, 1)


async def test_a_consumer_that_was_too_slow_for_a_hash_begins_anew(recording):
    class Link:
        async def __aiter__(self):
            yield json.dumps({"type": "detections", "captured_ns": 1, "predictions": [], "dropped": 1})

    flags = {"recording": recording, "detector": "ws://127.0.0.1:9"}
    connection = module.ReplayConnection(
        module.Destination(ReplaySettings.load(flags), "ws://127.0.0.1:9", None, 3),
        Line(None, None),
        module.Ledger(watched=True),
        "0" * 32,
    )
    with pytest.raises(ConnectionLost, match="faster than this machine"):
        await connection._watch(Link())


async def test_a_pause_in_which_nothing_was_recorded_is_not_waited_for(monkeypatch):
    slept_s = []
    line = Line(None, 2.0)

    async def sleep(seconds):
        slept_s.append(seconds)

    monkeypatch.setattr("services.replay.line.asyncio.sleep", sleep)
    for number, captured_s in enumerate((5, 8, 10_008)):
        await line.until_due(SimpleNamespace(number=number, captured_ns=captured_s * 10**9))
    line.close()
    assert slept_s == pytest.approx([0, 3 / 2, 3 / 2 + MAX_GAP_S / 2], abs=1)


async def test_nothing_is_sent_that_the_detector_would_close_for(start_detector, recording, monkeypatch):
    monkeypatch.setattr(module, "RESTAMP_BYTES", 2**30)
    async with start_detector() as running:
        ledger = await replay(settings(recording, running))
    assert ledger.detected == ledger.sent == 0
    assert ledger.rejected.total() == FRAMES
    assert ledger.rejected.keys() <= {"too_large", "missing_reference"}


async def test_detections_that_do_not_come_are_asked_for_again(start_detector, recording, monkeypatch):
    """The subscription misses some: the packets come again behind their keyframe."""
    monkeypatch.setattr(module, "UNSEEN_S", 0.2)
    original, dropped = module.Ledger.see, []

    def see(self, captured_ns, predictions):
        if len(dropped) < 3 and self.detected >= 4:
            dropped.append(captured_ns)
        else:
            original(self, captured_ns, predictions)

    async with start_detector() as running:
        calm = await replay(settings(recording, running))
        monkeypatch.setattr(module.Ledger, "see", see)
        ledger = await replay(settings(recording, running))
    assert len(dropped) == 3
    assert ledger.sent > ledger.packets == ledger.detected == FRAMES
    assert ledger.digest.text == calm.digest.text


async def test_a_replay_shows_its_token_over_tls(start_detector, recording, tmp_path):
    """Once for its packets and once for the detections."""
    authority, token = Authority(tmp_path / "authority"), new_token()
    (file := tmp_path / "token").write_text(token)
    tokens = entry("desk", token, "camera", "replay").replace('["camera"]', '["camera", "consumer"]')
    async with start_detector(tokens=tokens, tls_cert=authority.sign()) as running:
        url = f"wss://{HOST}:{running.port}"
        flags = {"detector": url, "tls_ca": authority.file}
        ledger = await replay(settings(recording, running, **flags, token_file=file))
        assert ledger.detected == FRAMES
        refused = asyncio.ensure_future(replay(settings(recording, running, **flags)))
        registry = running.detector.statistics.metrics.registry
        name, labels = "splitcast_detector_connections_refused_total", {"reason": "token_missing"}
        await until(lambda: registry.get_sample_value(name, labels))
        refused.cancel()
        await asyncio.wait([refused])


async def test_a_camera_with_a_profile_of_its_own_brings_it_along(
    start_detector, make_camera, weights, tmp_path
):
    """The recording holds it, so that a detector that never saw it can ask for it."""
    layout = find_network(str(weights)).head("4.m", SIZE).layout
    profile = make_profile(layout)
    (file := tmp_path / "own.profile").write_bytes(profile.pack())
    async with start_detector() as running:
        await make_camera(running.url, codec="feature:quality=6", profile=file, record=str(tmp_path)).run()
    file.unlink()
    async with start_detector() as running:
        ledger = await replay(settings(tmp_path, running))
    assert (ledger.packets, ledger.detected) == (FRAMES, FRAMES)


async def test_without_a_digest_nobody_watches(start_detector, recording):
    async with start_detector() as running:
        ledger = await replay(settings(recording, running, no_digest=True))
        assert (
            running.detector.statistics.metrics.registry.get_sample_value("splitcast_detector_subscribers")
            == 0
        )
    assert (ledger.detected, ledger.watched) == (FRAMES, False)
    assert ledger.objects > 0


def test_the_account_is_printed(recording, capsys, monkeypatch):
    ledger = module.Ledger(watched=False)
    ledger.packets, ledger.sent, ledger.detected, ledger.objects = 5, 7, 3, 11
    ledger.rejected.update({"corrupt": 2})

    async def done(_settings):
        return ledger

    monkeypatch.setattr("services.replay.replay.replay", done)
    run_replay(ReplaySettings.load({"recording": recording, "json": True}))
    told = json.loads(capsys.readouterr().out)
    assert told.pop("seconds") >= 0
    account = {"packets": 5, "sent": 7, "detected": 3, "objects": 11, "rejected": {"corrupt": 2}}
    assert told == {**account, "sha256": None}
    run_replay(ReplaySettings.load({"recording": recording}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 packets: 3 detected, 2 corrupt; 11 objects"
    assert lines[1].endswith("; 2 sent again")
    ledger.detected = 0
    with pytest.raises(NothingDetected, match="none of 5 "):
        run_replay(ReplaySettings.load({"recording": recording}))


async def test_a_file_without_packets_says_so(tmp_path, recording, start_detector):
    rewritten(recording, tmp_path, lambda packets: [])
    with pytest.raises(NoRecording, match="before its first packet"):
        await replay(ReplaySettings.load({"recording": tmp_path}))
