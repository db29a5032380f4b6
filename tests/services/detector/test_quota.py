"""What a token's quota refuses in a hello, and how it holds a camera to its rate."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.access.tokens import Quota, new_token
from services.detector.quota import TEXT_BYTES, check_quota, largest_message_bytes
from services.detector.settings import DetectorSettings
from stream.errors import SessionError
from stream.session.close_codes import CloseCode
from tests.services.detector.peers import answer, closed, linked
from tests.services.detector.test_gate import entry
from tests.services.waiting import LIVENESS_S, until
from tests.stream.session.peers import make_hello as make_any_hello


@pytest.mark.parametrize(
    ("quota", "hello", "code", "words"),
    [
        (Quota(preview=False), {"preview": True}, CloseCode.PREVIEW_REFUSED, "without --preview"),
        (Quota(max_side=512), {}, CloseCode.TOO_COSTLY, "canvas 480x640; .* at most 512"),
        (Quota(max_side=639), {"canvas": (640, 480)}, CloseCode.TOO_COSTLY, "canvas 640x480"),
    ],
)
def test_refuses_what_the_token_does_not_allow(quota, hello, code, words):
    with pytest.raises(SessionError, match=words) as refusal:
        check_quota(make_any_hello(**hello), quota)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("quota", "hello"),
    [(Quota(), {"preview": True}), (Quota(preview=False), {}), (Quota(max_side=640), {})],
)
def test_allows_the_rest(quota, hello):
    check_quota(make_any_hello(**hello), quota)


@pytest.mark.parametrize(
    ("quota", "largest"),
    [
        (Quota(), 8 * 2**20),
        (Quota(packet_bytes=2**30), 8 * 2**20),
        (Quota(packet_bytes=2**20), 4 * 2**20),  # of a profile
        (Quota(packet_bytes=2**20, profiles=False), 2**20),
        (Quota(packet_bytes=1, profiles=False), TEXT_BYTES),
    ],
)
def test_a_connection_takes_no_more_at_a_time_than_its_token_allows(quota, largest):
    settings = DetectorSettings.load({"max_packet_mib": 8, "max_profile_mib": 4})
    assert largest_message_bytes(settings, quota) == largest


# --- over a connection ---

HELD, FREE = new_token(), new_token()


async def test_a_camera_that_is_told_its_rate_keeps_to_it(start_detector, make_camera, tmp_path):
    """It takes no frame before its time, and the detector holds nothing back."""
    file = tmp_path / "token"
    file.write_text(HELD)
    tokens = entry("held", HELD, "camera", "door") + "frames_per_s = 0.001\n"
    async with start_detector(tokens=tokens) as running:
        camera = make_camera(running.url, stream="door", token_file=file, drain_s=0.1)
        running_camera = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected == 1)
        await until(lambda: camera._uplink.rate_holds)
        [stream] = running.detector.streams
        assert (stream.packets, camera.unanswered) == (1, 0)
        camera.stop()
        await asyncio.wait_for(running_camera, LIVENESS_S)


async def test_who_is_too_fast_waits_and_loses_nothing(start_detector, make_hello, encode):
    """Its packet is neither refused nor worked on, while others' are; a detector that stops answers it."""
    tokens = (
        entry("held", HELD, "camera", "held") + "frames_per_s = 0.001\n" + entry("free", FREE, "camera", "*")
    )
    packets = [encode(0), encode(1)]
    async with (
        start_detector(tokens=tokens) as running,
        linked(running.url, HELD) as held,
        linked(running.url, FREE) as free,
    ):
        await held.send(make_hello(stream="held").text())
        await free.send(make_hello(stream="free").text())
        told, others = await answer(held), await answer(free)
        assert (told["type"], told["frames_per_s"]) == ("welcome", 0.001)
        assert (others["type"], others["frames_per_s"]) == ("welcome", None)
        for packet in packets:
            await held.send(packet)
        assert (await answer(held))["sequence"] == 0
        stream = running.detector.streams.get("held")
        await until(lambda: stream.packets == 2)
        for packet in packets:
            await free.send(packet)
            assert (await answer(free))["type"] == "ack"
        assert stream.frames == 1
        running.detector.stop()
        assert (await answer(held))["sequence"] == 1


async def test_who_connects_anew_has_no_new_quota(start_detector, make_hello, encode):
    """A camera that came again for each frame had as many as it liked."""
    tokens = entry("held", HELD, "camera", "*") + "frames_per_s = 0.001\n"
    async with start_detector(tokens=tokens) as running:
        async with linked(running.url, HELD) as link:
            await link.send(make_hello().text())
            await link.send(encode(0))
            assert [(await answer(link))["type"] for _ in range(2)] == ["welcome", "ack"]
        async with linked(running.url, HELD) as link:
            await link.send(make_hello().text())
            assert (await answer(link))["type"] == "welcome"
            await link.send(encode(0))
            [stream] = running.detector.streams
            await until(lambda: stream.packets == 2)
            running.detector.stop()  # which alone has the packet answered before its time
            assert (await answer(link))["type"] == "ack"
            assert stream.pace.take(time.monotonic_ns()) > 1500e9


async def test_a_packet_larger_than_the_token_allows_ends_the_connection(start_detector, make_hello, encode):
    tokens = entry("held", HELD, "camera", "*") + "max_packet_kib = 1\n"
    async with start_detector(tokens=tokens) as running, linked(running.url, HELD) as link:
        await link.send(make_hello().text())
        assert (await answer(link))["max_packet_bytes"] == 1024
        packet = encode(0)
        assert len(packet) > 1024
        await link.send(packet)
        assert (await closed(link)).code == CloseCode.PACKET_TOO_LARGE


async def test_a_message_larger_than_any_that_the_token_allows_is_not_gathered(start_detector, make_hello):
    tokens = entry("held", HELD, "camera", "*") + "max_packet_kib = 1\nprofiles = false\n"
    async with start_detector(tokens=tokens) as running, linked(running.url, HELD) as link:
        await link.send(make_hello().text())
        assert (await answer(link))["type"] == "welcome"
        await link.send(bytes(TEXT_BYTES + 1))
        assert (await closed(link)).code == CloseCode.MESSAGE_TOO_LARGE
