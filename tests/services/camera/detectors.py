"""A detector of the test's own that is asked for little: it answers every packet as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable

from aiohttp import WSMsgType, web

from codec.packet import PacketHeader
from stream.session.ack import Ack
from stream.session.messages import FEATURES_PROTOCOL, Reject, RejectReason, Welcome
from tests.services.packet_headers import PacketHeaders


class ObedientDetector:
    """Keeps what cameras say; `verdict` gives the reason to reject a packet, or None.

    `texts` are those of each connection, `packets` the headers of all.
    """

    def __init__(
        self,
        verdict: Callable[[PacketHeader], RejectReason | None] = lambda header: None,
        max_packet_bytes: int = 2**20,
        frames_per_s: float | None = None,
    ) -> None:
        self.verdict, self.frames_per_s = verdict, frames_per_s
        self.max_packet_bytes = max_packet_bytes
        self.texts: list[list[dict]] = []
        self.packets: list[PacketHeader] = []
        self.closes: list[int | None] = []

    def said(self, kind: str) -> list[dict]:
        """All texts of a type, of all connections."""
        return [text for texts in self.texts for text in texts if text["type"] == kind]

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,), heartbeat=1)
        await ws.prepare(request)
        texts: list[dict] = []
        self.texts.append(texts)
        headers: PacketHeaders | None = None
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                texts.append(json.loads(message.data))
                if texts[-1]["type"] == "hello":
                    headers = PacketHeaders(texts[-1])
                    welcome = Welcome(
                        window=1, max_packet_bytes=self.max_packet_bytes, frames_per_s=self.frames_per_s
                    )
                    await ws.send_str(welcome.text())
            elif message.type is WSMsgType.BINARY:
                assert headers is not None
                header = headers.read(message.data)
                self.packets.append(header)
                if reason := self.verdict(header):
                    await ws.send_str(Reject(reason=reason).text())
                else:
                    await ws.send_bytes(Ack(header.sequence, detections=0, stages_ns={}).pack())
        self.closes.append(ws.close_code)
        return ws
