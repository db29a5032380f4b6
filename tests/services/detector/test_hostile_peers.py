"""What a detector answers to peers that break the protocol: a close code, a reason, and no harm to others."""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64encode
from contextlib import suppress

import cv2
import numpy as np
import pytest
from aiohttp import ClientSession, WSMsgType

from codec.packet import Stamp
from codec.spec import parse_codec
from stream.errors import ConnectionLost
from stream.network.cut import layout
from stream.session.camera import tensor_shapes
from stream.session.close_codes import CloseCode
from stream.session.detector import PREVIEW_BURST
from stream.session.messages import (
    Preview,
    TensorShape,
)
from stream.transport.websocket import Link
from tests.services.clips import FRAMES, SIZE
from tests.services.detector.peers import answer, closed, linked
from tests.services.waiting import LIVENESS_S

JPEG = cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes()


async def flood(link: Link, packet: bytes) -> None:
    """Send without waiting for answers, until the detector closes."""
    while True:
        await link.send(packet)


async def still_serves(running, make_camera) -> bool:
    camera = make_camera(running.url, stream="honest")
    await asyncio.wait_for(camera.run(), LIVENESS_S)
    return camera.statistics.frame_counts.detected == FRAMES


async def test_a_corrupt_packet_costs_one_frame(start_detector, make_hello, encode, make_camera):
    async with start_detector() as running:
        async with linked(running.url) as link:
            await link.send(make_hello().text())
            assert (await answer(link))["type"] == "welcome"
            await link.send(encode(0))
            assert (await answer(link))["type"] == "ack"
            damaged = bytearray(encode(1))
            damaged[len(damaged) // 2] ^= 1
            await link.send(bytes(damaged))
            reject = await answer(link)
            assert (reject["type"], reject["reason"]) == ("reject", "corrupt")
            assert (await answer(link))["type"] == "keyframe"
            await link.send(encode(2))  # its reference was in the damaged packet
            reject = await answer(link)
            assert (reject["type"], reject["reason"]) == ("reject", "missing_reference")
            await link.send(encode(3, keyframe=True))
            ack = await answer(link)
            assert (ack["type"], ack["sequence"]) == ("ack", 3)
        stream = running.detector.streams.get("door")
        assert (stream.frames, stream.rejected) == (2, {"corrupt": 1, "missing_reference": 1})
        assert await still_serves(running, make_camera)


async def test_any_bytes_are_answered(start_detector, make_hello, encode, make_camera):
    numbers = random.Random(0)
    good = encode(0)
    async with start_detector() as running:
        async with linked(running.url) as link:
            await link.send(make_hello().text())
            await answer(link)
            for trial in range(200):
                if trial % 2:
                    packet = numbers.randbytes(numbers.randrange(len(good) + 1))
                else:
                    packet = bytearray(good)
                    for _ in range(numbers.randrange(1, 4)):
                        packet[numbers.randrange(len(packet))] = numbers.randrange(256)
                await link.send(bytes(packet))
                while (message := await answer(link))["type"] == "keyframe":
                    pass
                assert message["type"] in {"reject", "ack"}
            await link.send(encode(1, keyframe=True))
            while (message := await answer(link))["type"] == "keyframe":
                pass
            assert (message["type"], message["sequence"]) == ("ack", 1)
        assert await still_serves(running, make_camera)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"weights": "0" * 64}, CloseCode.WEIGHTS_DIFFER, "weights differ"),
        ({"split": "99"}, CloseCode.SPLIT_UNKNOWN, "'99'"),
        ({"canvas": (65, 96)}, CloseCode.SHAPES_DIFFER, "multiples of 32"),
        ({"canvas": (64, 1312)}, CloseCode.TOO_COSTLY, "at most 1280"),
        ({"canvas": (96, 96)}, CloseCode.SHAPES_DIFFER, "tensors differ"),
        ({"codec": "rle:bits=1"}, CloseCode.CODEC_REFUSED, "bits"),
        (
            {"protocol": 1},
            CloseCode.PROTOCOL_VERSION,
            "camera speaks protocol 1, detector 2: update the older one",
        ),
        ({"protocol": 7}, CloseCode.PROTOCOL_VERSION, "protocol 7"),
    ],
)
async def test_refuses_a_hello_that_disagrees(start_detector, make_hello, changes, code, words):
    async with start_detector() as running:
        async with linked(running.url) as link:
            await link.send(make_hello(**changes).text())
            lost = await closed(link)
        assert (lost.code, words in lost.reason) == (code, True), lost.reason
        sample = running.detector.statistics.metrics.registry.get_sample_value
        assert sample("splitcast_detector_sessions_closed_total", {"code": str(code.value)}) == 1


@pytest.mark.parametrize("first", ["{", "[]", '{"type":"hello"}', '{"type":"report"}', b"SPLC", "\0" * 1000])
async def test_refuses_what_is_not_a_hello(start_detector, first):
    async with start_detector() as running, linked(running.url) as link:
        await link.send(first)
        assert (await closed(link)).code == CloseCode.BAD_MESSAGE


async def test_refuses_a_canvas_whose_packets_would_be_too_large(start_detector, make_hello, model):
    canvas = (1280, 1280)
    hello = make_hello(
        canvas=canvas, tensors=tensor_shapes(layout(model.graph, "0", canvas)), split="0", codec="raw"
    )
    async with start_detector() as running, linked(running.url) as link:
        await link.send(hello.text())
        lost = await closed(link)
    assert lost.code == CloseCode.PACKET_TOO_LARGE
    assert "--max-packet-mib" in lost.reason


async def test_a_bad_preview_costs_its_own_connection(start_detector, make_hello, encode, make_camera):
    promises_gigabytes = b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\3" + bytes(9) + b"\xff\xda\xff\xd9"
    cases = {
        "not base64": "%%%",
        "not a whole JPEG": b64encode(b"<html>").decode(),
        "at most": "A" * 60_000,
        "65535x65535": b64encode(promises_gigabytes).decode(),
    }
    packet = encode(0)
    async with start_detector() as running:
        for words, jpeg in cases.items():
            async with linked(running.url) as link:
                await link.send(make_hello(stream=f"bad{len(jpeg)}", preview=True).text())
                await answer(link)
                await link.send(packet)
                assert (await answer(link))["type"] == "ack"
                await link.send(json.dumps({"type": "preview", "jpeg": jpeg}))
                lost = await closed(link)
            assert (lost.code, words in lost.reason) == (CloseCode.BAD_MESSAGE, True), lost.reason
            assert running.detector.streams.get(f"bad{len(jpeg)}").preview is None
        assert await still_serves(running, make_camera)


async def test_refuses_a_preview_that_was_not_announced(start_detector, make_hello):
    async with start_detector() as running, linked(running.url) as link:
        await link.send(make_hello().text())
        await answer(link)
        await link.send(Preview(jpeg=JPEG).text())
        lost = await closed(link)
    assert (lost.code, "did not announce" in lost.reason) == (CloseCode.BAD_MESSAGE, True)


async def test_refuses_a_preview_before_the_hello(start_detector):
    async with start_detector() as running, linked(running.url) as link:
        await link.send(Preview(jpeg=JPEG).text())
        assert (await closed(link)).code == CloseCode.BAD_MESSAGE


async def test_refuses_a_film_of_previews(start_detector, make_hello, make_camera):
    async with start_detector() as running:
        async with linked(running.url) as link:
            await link.send(make_hello(preview=True).text())
            await answer(link)
            with suppress(ConnectionLost):
                for _ in range(10 * PREVIEW_BURST):
                    await link.send(Preview(jpeg=JPEG).text())
            lost = await closed(link)
            assert lost.code in {CloseCode.BAD_MESSAGE, 1006}  # the reset may overtake the reason
        sample = running.detector.statistics.metrics.registry.get_sample_value
        closed_code = {"code": str(CloseCode.BAD_MESSAGE.value)}
        assert sample("splitcast_detector_sessions_closed_total", closed_code) == 1
        assert await still_serves(running, make_camera)


async def test_a_preview_is_forgotten_with_its_connection(start_detector, make_hello):
    async with start_detector() as running, ClientSession() as session:
        url = f"{running.http}/v1/streams/door"

        async def shown() -> bytes | None:
            async with session.get(f"{url}/preview.jpg") as answer:
                assert answer.status in {200, 404}
                return await answer.read() if answer.status == 200 else None

        async def shows(expected: bytes | None) -> None:
            async with asyncio.timeout(LIVENESS_S):
                while await shown() != expected:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        for _ in range(2):
            async with linked(running.url) as link:
                await link.send(make_hello(preview=True).text())
                await answer(link)
                assert await shown() is None
                await link.send(Preview(jpeg=JPEG).text())
                await shows(JPEG)
            await shows(None)
        async with session.get(url) as described:
            assert (await described.json())["preview"] is False


async def test_refuses_silence(start_detector):
    async with start_detector(hello_timeout_s=0.1) as running, linked(running.url) as link:
        assert (await closed(link)).code == CloseCode.TIMEOUT


async def test_refuses_another_subprotocol(start_detector):
    async with (
        start_detector() as running,
        ClientSession() as session,
        session.ws_connect(f"{running.url}/v1/features", protocols=("mqtt",)) as ws,
    ):
        message = await ws.receive(timeout=LIVENESS_S)
        assert message.type is WSMsgType.CLOSE
        assert message.data == CloseCode.BAD_SUBPROTOCOL


async def test_refuses_a_second_camera_of_the_same_name(start_detector, make_hello, make_camera):
    async with start_detector() as running:
        async with linked(running.url) as first, linked(running.url) as second:
            await first.send(make_hello().text())
            assert (await answer(first))["type"] == "welcome"
            await second.send(make_hello().text())
            lost = await closed(second)
            assert (lost.code, "choose --stream" in lost.reason) == (CloseCode.STREAM_TAKEN, True)
        assert await still_serves(running, make_camera)


async def test_refuses_more_cameras_than_allowed(start_detector, make_hello):
    async with (
        start_detector(max_streams=1) as running,
        linked(running.url) as first,
        linked(running.url) as second,
    ):
        await first.send(make_hello().text())
        await answer(first)
        await second.send(make_hello(stream="porch").text())
        assert (await closed(second)).code == CloseCode.TOO_MANY_STREAMS


async def test_refuses_more_packets_than_the_window(start_detector, make_hello, encode):
    async with start_detector(window=1) as running, linked(running.url) as link:
        await link.send(make_hello().text())
        await answer(link)
        with suppress(ConnectionLost):
            await flood(link, encode(0))
        sample = running.detector.statistics.metrics.registry.get_sample_value
        name = "splitcast_detector_sessions_closed_total"
        while not sample(name, {"code": str(CloseCode.WINDOW_EXCEEDED.value)}):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_refuses_a_message_larger_than_any_packet(start_detector, make_hello, make_camera):
    async with start_detector(max_packet_mib=1, profiles=False) as running:
        async with linked(running.url) as link:
            await link.send(make_hello().text())
            await answer(link)
            with suppress(ConnectionLost):
                await link.send(bytes(2 * 2**20))
            assert (await closed(link)).code in {1006, 1009}
        assert await still_serves(running, make_camera)


async def test_before_the_hello_nobody_makes_a_detector_hold_much(start_detector, make_camera):
    async with start_detector() as running:
        async with linked(running.url) as link:
            await link.send('{"type":"hello","x":[' + "{}," * 2_000_000 + "{}]}")
            assert (await closed(link)).code in {CloseCode.MESSAGE_TOO_LARGE, 1006}  # a reset may overtake it
        sample = running.detector.statistics.metrics.registry.get_sample_value
        assert sample("splitcast_detector_sessions_closed_total", {"code": "1009"}) == 1
        assert await still_serves(running, make_camera)


async def test_a_name_that_no_packet_can_carry_is_refused(start_detector, make_hello):
    tensors = [TensorShape(name="a\0b", shape=[1, 2, 3])]
    async with start_detector() as running, linked(running.url) as link:
        await link.send(make_hello(tensors=tensors).text())
        assert (await closed(link)).code == CloseCode.SHAPES_DIFFER


async def test_the_latest_time_a_packet_can_tell_is_acknowledged(start_detector, make_hello, agreed):
    encoder = parse_codec("rle:bits=4,temporal=true").encoder(agreed)
    tensors = {spec.name: np.zeros(spec.shape, np.float32) for spec in agreed}
    async with start_detector() as running, linked(running.url) as link:
        await link.send(make_hello().text())
        await answer(link)
        await link.send(encoder.encode(tensors, Stamp(0, 2**64 - 1, *SIZE)).data)
        assert (await answer(link))["type"] == "ack"


async def test_refuses_tensors_larger_than_allowed(start_detector, make_hello, model):
    """Zeros compress a hundredfold: what a frame decodes to is bounded apart from its packet."""
    canvas = (1280, 1280)
    tensors = tensor_shapes(layout(model.graph, "0", canvas))
    hello = make_hello(canvas=canvas, tensors=tensors, split="0", codec="rle:bits=2")
    async with (
        start_detector(max_packet_mib=1024, max_tensors_mib=16) as running,
        linked(running.url) as link,
    ):
        await link.send(hello.text())
        lost = await closed(link)
    assert lost.code == CloseCode.PACKET_TOO_LARGE
    assert "--max-tensors-mib" in lost.reason


async def test_a_defect_costs_one_connection(start_detector, make_hello, make_camera, monkeypatch):
    async with start_detector() as running:
        with monkeypatch.context() as broken:
            broken.setattr(running.detector.inference, "tail", lambda *_: 1 // 0)
            async with linked(running.url) as link:
                await link.send(make_hello().text())
                assert (await closed(link)).code == CloseCode.INTERNAL_ERROR
        async with linked(running.url) as link:
            await link.send(make_hello().text())  # the name was not taken by the one that failed
            assert (await answer(link))["type"] == "welcome"
        assert await still_serves(running, make_camera)
