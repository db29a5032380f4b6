"""A detector of the test's own that is asked for little: it answers every packet as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable

from aiohttp import WSMsgType, web

from codec.packet import PacketHeader
from stream.session.messages import FEATURES_PROTOCOL, Ack, Reject, RejectReason, Welcome


class ObedientDetector:
    """Keeps what cameras say; `verdict` gives the reason to reject a packet, or None.

    `texts` are those of each connection, `packets` the headers of all.
    """

    def __init__(
        self,
        verdict: Callable[[PacketHeader], RejectReason | None] = lambda header: None,
        max_packet_bytes: int = 2**20,
    ) -> None:
        self.verdict = verdict
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
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                texts.append(json.loads(message.data))
                if texts[-1]["type"] == "hello":
                    await ws.send_str(Welcome(window=1, max_packet_bytes=self.max_packet_bytes).text())
            elif message.type is WSMsgType.BINARY:
                header = PacketHeader.parse(message.data)
                self.packets.append(header)
                await ws.send_str(self._answer(header).text())
        self.closes.append(ws.close_code)
        return ws

    def _answer(self, header: PacketHeader) -> Ack | Reject:
        if reason := self.verdict(header):
            return Reject(reason=reason)
        return Ack(sequence=header.sequence, captured_ns=header.captured_ns, detections=0, stages_ns={})
