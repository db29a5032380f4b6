"""Bytes on their way between a client and a server, and the faults of the way itself."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from services.chaos.delay_line import DelayLine, Ending, Part
from services.chaos.faults import (
    Bandwidth,
    BlackHole,
    ConnectionFault,
    Direction,
    End,
    HalfOpen,
    Latency,
    SlowClose,
)
from services.chaos.report import Passed
from services.chaos.switches import Switches
from services.chaos.websocket import MessageEditor

CHUNK_BYTES = 16 * 2**10
SLICE_S = 0.02  # of a thin link: what is sent in one go

Leg: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Way:
    """One direction, as all connections share it: how late, how fast, and whether at all."""

    def __init__(self, direction: Direction, switches: Switches, passed: Passed) -> None:
        self.direction = direction
        self._switches, self._passed = switches, passed
        self._open = asyncio.Event()
        self._open.set()
        self._free_s = 0.0  # when the thin link has passed on all before

    def update(self) -> None:
        """A fault was switched."""
        if any(self._switches.on(BlackHole, self.direction)):
            self._open.clear()
        else:
            self._open.set()

    async def until_open(self) -> None:
        """Wait for the end of a black hole."""
        await self._open.wait()

    def delay_s(self) -> float:
        """By how much what is read now comes later."""
        return sum(
            max(0.0, fault.ms + fault.jitter * switch.random.uniform(-1, 1)) / 1e3
            for fault, switch in self._switches.on(Latency, self.direction)
        )

    def close_delay_s(self) -> float:
        """By how much an end's close comes later."""
        return sum(fault.ms / 1e3 for fault, _ in self._switches.on(SlowClose, self.direction))

    async def pass_on(self, part: Part, writer: asyncio.StreamWriter) -> None:
        """Write a part as fast as the link allows. Raises OSError."""
        loop = asyncio.get_running_loop()
        data = memoryview(part.data)
        while data:
            await self._open.wait()
            kbps = min(
                (fault.kbps for fault, _ in self._switches.on(Bandwidth, self.direction)), default=None
            )
            size = len(data)
            if kbps is not None:
                size = min(size, max(1, int(kbps * 125 * SLICE_S)))
                self._free_s = max(self._free_s, loop.time()) + size / 125 / kbps
                await asyncio.sleep(self._free_s - loop.time())
                await self._open.wait()
            writer.write(data[:size])
            self._passed.bytes += size
            data = data[size:]
            await writer.drain()
        if part.kind:
            self._passed.messages[part.kind] += 1


class Connection:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, number: int, client: Leg, server: Leg, ways: Mapping[Direction, Way]) -> None:
        self.number = number
        self._ways = ways
        self._legs: dict[End, Leg] = {"client": client, "server": server}
        self._pumps: list[asyncio.Task[None]] = []
        self._struck = False
        self._untold: tuple[End, ...] = ()

    def strike(self, fault: ConnectionFault) -> None:
        """Let the fault work on this connection: from now on nothing passes."""
        self._struck = True
        self._untold = fault.untold if isinstance(fault, HalfOpen) else ()
        for pump in self._pumps:
            pump.cancel()
        for end, (_, writer) in self._legs.items():
            if end not in self._untold:
                reset(writer)

    async def run(self, editors: Mapping[Direction, MessageEditor]) -> None:
        """Pass everything on, through the editors if any, until both ends are done or a fault strikes."""
        writers = [writer for _, writer in self._legs.values()]
        try:
            if not self._struck:
                await self._pass(editors)
            await asyncio.gather(*(_swallow(self._legs[end][0]) for end in self._untold))
            for writer in writers:
                writer.close()
            await _closed(writers)
        finally:
            for writer in writers:
                reset(writer)  # nothing, unless the proxy ends before the connection does
            await _closed(writers)

    async def _pass(self, editors: Mapping[Direction, MessageEditor]) -> None:
        client, server = self._legs["client"], self._legs["server"]
        pairs: dict[Direction, tuple[Leg, Leg]] = {"up": (client, server), "down": (server, client)}
        try:
            async with asyncio.TaskGroup() as tasks:
                for direction, ((reader, _), (_, writer)) in pairs.items():
                    line, way = DelayLine(), self._ways[direction]
                    self._pumps += [
                        tasks.create_task(_read(reader, line, way, editors.get(direction))),
                        tasks.create_task(_write(line, writer, way)),
                    ]
        except* OSError:
            for _, writer in self._legs.values():
                reset(writer)


async def _read(
    reader: asyncio.StreamReader, line: DelayLine, way: Way, editor: MessageEditor | None
) -> None:
    ending: Ending = "closed"
    try:
        while data := await reader.read(CHUNK_BYTES):
            delay_s = way.delay_s()
            for part in editor.receive(data) if editor else (Part(data),):
                await line.put(part, delay_s)
    except OSError:
        ending = "reset"
    if editor and ending == "closed":
        await line.put(editor.rest())
    await line.put(Part(ending=ending), way.close_delay_s())


async def _write(line: DelayLine, writer: asyncio.StreamWriter, way: Way) -> None:
    while (part := await line.get()).ending is None:
        await way.pass_on(part, writer)
    await way.until_open()
    if part.ending == "reset":
        raise ConnectionResetError("the other end has reset the connection")
    if writer.can_write_eof():
        writer.write_eof()


async def _swallow(reader: asyncio.StreamReader) -> None:
    """Take what a peer tells nobody, until it leaves."""
    try:
        while await reader.read(CHUNK_BYTES):
            pass
    except OSError:
        pass


async def _closed(writers: Iterable[asyncio.StreamWriter]) -> None:
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset, and not by what is left in its buffers and a FIN."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
