from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest

from stream.sources import cameras
from stream.sources.base import DecodeErrors, SourceConnected, SourceLost, SourceRetry
from stream.sources.cameras import CannotOpen, explain, knock
from stream.sources.capture_messages import CaptureRequest
from stream.sources.opening import open_source
from stream.tasks.backoff import Failure
from tests.ports import free_port
from tests.stream.sources.watching import (
    CLIPS,
    IMPATIENT,
    Events,
    assert_nothing_left,
    drained,
    receive,
    write_resized_video,
    write_video,
)


class Server:
    """Answers every request with the same bytes, then says nothing more."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        assert_nothing_left()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def found(content: bytes, kind: str) -> bytes:
    return f"HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode() + content


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_wrong_credentials_are_tried_rarely(status):
    events = Events()
    async with Server(f"HTTP/1.0 {status}\r\n\r\n".encode()) as server:
        url = f"http://admin:hunter2@127.0.0.1:{server.port}/"
        async with open_source(url, IMPATIENT, events) as source, drained(source):
            retry = await events.until(SourceRetry)
            assert retry.delay_s >= 2
    assert status[:3] in events.of(SourceLost)[0].reason
    assert "user name or password" in events.of(SourceLost)[0].reason
    assert "hunter2" not in str(events.seen)


async def test_a_stream_without_video_says_so(tmp_path):
    import av
    import numpy as np

    with av.open(str(tmp_path / "sound.ts"), "w") as clip:
        stream = clip.add_stream("mp2", rate=48000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1152 * 20), np.int16), format="s16", layout="mono")
        sound.sample_rate = 48000
        clip.mux(stream.encode(sound))
        clip.mux(stream.encode())
    events = Events()
    async with Server(found((tmp_path / "sound.ts").read_bytes(), "video/mp2t")) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with open_source(url, IMPATIENT, events) as source, drained(source):
            lost = await events.until(SourceLost)
    assert lost.reason == "it has no video"


async def test_a_name_that_does_not_resolve_is_told_and_tried_again():
    events = Events()
    async with open_source("rtsp://nowhere.invalid/", IMPATIENT, events) as source, drained(source):
        await events.until(SourceLost, 2)
    assert "resolve" in events.of(SourceLost)[0].reason
    assert "does not resolve" in events.of(SourceLost)[1].reason
    assert_nothing_left()


async def test_damage_is_counted_and_costs_no_connection(tmp_path):
    data = bytearray(write_resized_video(tmp_path / "clip.ts", [(320, 240, 60)]).read_bytes())
    for packet in range(60 * 188, len(data) - 60 * 188, 20 * 188):
        data[packet + 100 : packet + 110] = b"\xa5" * 10
    events = Events()
    async with Server(found(bytes(data), "video/mp2t")) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with open_source(url, IMPATIENT, events) as source, drained(source):
            await events.until(SourceLost)
    assert events.seen[0] == SourceConnected(320, 240)
    assert sum(event.count for event in events.of(DecodeErrors)) > 0
    first = next(index for index, event in enumerate(events.seen) if isinstance(event, SourceLost))
    assert any(isinstance(event, DecodeErrors) for event in events.seen[:first])


async def test_a_playlist_leads_to_no_file_of_this_machine(tmp_path):
    clip = write_video(tmp_path / "clip.avi", 4)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{clip}\n#EXT-X-ENDLIST\n"
    events = Events()
    async with Server(found(playlist.encode(), "application/vnd.apple.mpegurl")) as server:
        url = f"http://127.0.0.1:{server.port}/live.m3u8"
        async with open_source(url, IMPATIENT, events) as source, drained(source):
            await events.until(SourceLost)
    assert events.of(SourceConnected) == []


async def test_av1_comes_over_the_network_too():
    events = Events()
    async with Server(found((CLIPS / "av1.mkv").read_bytes(), "video/x-matroska")) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with open_source(url, IMPATIENT, events) as source:
            (frame,) = await receive(source, 1)
    assert frame.image.shape == (240, 320, 3)


def test_a_host_that_accepts_is_found_by_knocking():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        knock(f"rtsp://user:pass@127.0.0.1:{port}/stream")
        server.settimeout(5)
        server.accept()[0].close()


def test_a_port_that_refuses_is_found_by_knocking():
    with pytest.raises(CannotOpen, match="Connection refused") as refused:
        knock(f"rtsp://127.0.0.1:{free_port()}/stream")
    assert refused.value.failure is Failure.NOT_READY


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED])
def test_a_host_that_hangs_up_is_there(monkeypatch, number):
    def hang_up(address, timeout_s):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cameras.socket, "create_connection", hang_up)
    with pytest.raises(CannotOpen, match=os.strerror(number)) as refused:
        knock("rtsp://192.0.2.1/stream")
    assert refused.value.failure is Failure.NOT_READY


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "no answer"),
        (OSError(113, "No route to host"), "No route to host"),
        (socket.gaierror(-2, "Name or service not known"), "does not resolve"),
    ],
)
def test_a_host_that_is_not_there_is_unreachable(monkeypatch, error, reason):
    def refuse(address, timeout_s):
        raise error

    monkeypatch.setattr(cameras.socket, "create_connection", refuse)
    with pytest.raises(CannotOpen, match=reason) as refused:
        knock("rtsp://192.0.2.1/stream")
    assert refused.value.failure is Failure.UNREACHABLE


@pytest.mark.parametrize(
    "url", ["udp://@:1234", "http://127.0.0.1:1/", "rtsp://[broken/", "rtsp://h:99999999/"]
)
def test_nobody_knocks_where_that_would_say_nothing(monkeypatch, url):
    """A proxy may stand between; and what is no address is for FFmpeg to refuse."""
    monkeypatch.delattr(cameras.socket, "create_connection")
    knock(url)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("rtsp://admin:x@hunter2/y@127.0.0.1:9/live", False),
        ("rtsp://admin:hunter2/y@127.0.0.1/live", False),
        ("rtsp://hunter2?y@127.0.0.1/live", False),
        ("rtsp://hunter2#y@127.0.0.1/live", False),
        ("rtsp://admin:x@hunter2@127.0.0.1/live", False),
        ("rtsp://admin:secret@hunter2/live", True),
        ("rtsp://hunter2/live?a=b", True),
    ],
)
def test_what_ffmpeg_takes_for_the_host_is_not_told_where_it_may_be_the_password(target, told):
    complaint = "[tcp @ 0x55] Failed to resolve hostname hunter2: Name or service not known\n"
    reason = explain(
        CaptureRequest(target, is_device=False, open_timeout_s=5.0, rtsp_transport="tcp"), 0.1, complaint
    )
    assert ("Failed to resolve hostname hunter2" in reason) == told
    assert ("hunter2" in reason) == told
    assert ("%2F" in reason) != told
