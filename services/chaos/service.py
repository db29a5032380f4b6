"""The proxy: accepts connections, switches faults when they are due, and keeps account."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import structlog

from services.chaos.faults import ConnectionFault, Direction, Fault, MessageFault, parse_fault
from services.chaos.report import ChaosReport
from services.chaos.settings import Address, ChaosSettings, parse_address
from services.chaos.switches import Switch, Switches
from services.chaos.tcp import Connection, Leg, Way, reset
from services.chaos.websocket import MessageEditor, Upgrade
from services.settings import require_folder_of
from services.signals import run_until_stopped
from stream.atomic_file import write_whole

log = structlog.get_logger(__name__)

MOST_CONNECTIONS = 1024
LOOPBACK = Address("127.0.0.1", 0)


class ChaosProxy:
    """Passes what comes to one address on to another; faults are switched on and off while it runs.

    `chaos_proxy` starts one. With `messages` it sees WebSocket messages, and holds each until it is complete.
    """

    def __init__(self, to: Address, *, messages: bool, seed: int) -> None:
        self.address = Address("", 0)  # where it listens
        self._to, self._messages = to, messages
        self._switches = Switches(seed)
        self._by_text: dict[str, Switch] = {}
        self._start_s = time.monotonic()
        self.report = ChaosReport(str(to), seed, time.time())
        self._ways: dict[Direction, Way] = {
            direction: Way(direction, self._switches, passed)
            for direction, passed in self.report.passed.items()
        }
        self._passed = 0
        self._connections: set[Connection] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._schedules: dict[Switch, asyncio.Task[None]] = {}

    @property
    def url(self) -> str:
        """Its address as a camera or subscriber is told."""
        return f"ws://{self.address}"

    @property
    def to_server(self) -> int:
        """Bytes that were passed on from clients."""
        return self.report.passed["up"].bytes

    @property
    def to_client(self) -> int:
        """Bytes that were passed on from the server."""
        return self.report.passed["down"].bytes

    def now_s(self) -> float:
        """Seconds since the start, as the report counts them."""
        return time.monotonic() - self._start_s

    # --- faults ---

    def begin(self, text: str) -> Switch:
        """Let a fault begin now; its own times count from now. The same text goes on in the same record.

        Raises ValueError where the text is no fault, or one on messages, which this proxy does not see.
        """
        fault = parse_fault(text)
        if isinstance(fault, MessageFault) and not self._messages:
            raise ValueError(f"{text}: this proxy sees no messages")
        switch = self._by_text.get(text)
        if switch is None:
            switch = self._by_text[text] = self._switches.add(fault, text)
            self.report.faults.append(switch.record)
        self.end(switch)
        starts_s = self.now_s()
        if fault.start == 0:  # before anything passes
            self._turn(switch, True)
        self._schedules[switch] = asyncio.ensure_future(self._follow(switch, fault, starts_s))
        return switch

    def end(self, switch: Switch) -> None:
        """Let a fault end now, and not begin again."""
        if schedule := self._schedules.pop(switch, None):
            schedule.cancel()
        self._turn(switch, False)

    @contextmanager
    def fault(self, text: str) -> Iterator[Switch]:
        """A fault for as long as a block of code runs."""
        switch = self.begin(text)
        try:
            yield switch
        finally:
            self.end(switch)

    async def _follow(self, switch: Switch, fault: Fault, starts_s: float) -> None:
        for from_s, until_s in fault.windows():
            await asyncio.sleep(starts_s + from_s - self.now_s())
            self._turn(switch, True)
            await asyncio.sleep(starts_s + until_s - self.now_s())
            self._turn(switch, False)

    def _turn(self, switch: Switch, on: bool) -> None:
        if switch.on == on:
            return
        switch.turn(on, self.now_s())
        log.info("fault on" if on else "fault off", fault=switch.record.text)
        for way in self._ways.values():
            way.update()
        if on and isinstance(switch.fault, ConnectionFault):
            for connection in self._connections:
                self._strike(connection, switch, switch.fault)

    def _strike(self, connection: Connection, switch: Switch, fault: ConnectionFault) -> None:
        switch.record.add(self.now_s(), connection.number)
        connection.strike(fault)

    # --- connections ---

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client, until both ends are done or the proxy is closed."""
        task = asyncio.ensure_future(self._serve((reader, writer)))
        self._serving.add(task)
        task.add_done_callback(self._on_served)

    def _on_served(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("connection failed", exc_info=error)

    async def _serve(self, client: Leg) -> None:
        _, writer = client
        try:
            server = await self._reach_server()
        except OSError as error:
            log.warning("client turned away", reason=str(error))
            reset(writer)
        except asyncio.CancelledError:
            reset(writer)
            raise
        else:
            await self._pass(client, server)

    async def _reach_server(self) -> Leg:
        if len(self._serving) > MOST_CONNECTIONS:
            raise ConnectionAbortedError(f"more than {MOST_CONNECTIONS} connections")
        self.report.accepted += 1
        await self._ways["up"].until_open()
        try:
            return await asyncio.open_connection(*self._to)
        except OSError:
            self.report.unreachable += 1
            raise

    async def _pass(self, client: Leg, server: Leg) -> None:
        self._passed += 1
        number, upgrade = self._passed, Upgrade()
        connection = Connection(number, client, server, self._ways)
        editors: dict[Direction, MessageEditor] = {
            direction: MessageEditor(direction, number, upgrade, self._switches, self.now_s)
            for direction in self._ways
            if self._messages
        }
        self._connections.add(connection)
        self.report.open += 1
        for fault, switch in self._switches.on(ConnectionFault):
            self._strike(connection, switch, fault)
        try:
            await connection.run(editors)
        finally:
            self._connections.discard(connection)
            self.report.open -= 1

    async def close(self) -> None:
        """End every fault and every connection."""
        for switch in self._switches.all:
            self.end(switch)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)


@asynccontextmanager
async def chaos_proxy(
    to: Address,
    faults: Iterable[str] = (),
    *,
    listen: Address = LOOPBACK,
    messages: bool = True,
    seed: int = 0,
) -> AsyncIterator[ChaosProxy]:
    """A proxy to `to` that runs meanwhile.

    Raises ValueError where a text is no fault, OSError where it cannot listen.
    """
    proxy = ChaosProxy(to, messages=messages, seed=seed)
    server = await asyncio.start_server(proxy.accept, *listen)
    proxy.address = Address(*server.sockets[0].getsockname()[:2])
    try:
        for text in faults:
            proxy.begin(text)
        yield proxy
    finally:
        server.close()
        await proxy.close()


def run_chaos(settings: ChaosSettings) -> None:
    """Run a proxy for so long, or until it is stopped, and write its report. Raises OSError where it cannot listen."""
    require_folder_of(settings.json_file, "--json")
    text = json.dumps(asyncio.run(_run(settings)), indent=1)
    if settings.json_file is None:
        print(text)
    else:
        write_whole(settings.json_file, text + "\n")


async def _run(settings: ChaosSettings) -> dict[str, Any]:
    stopped = asyncio.Event()
    report: dict[str, Any] = {}

    async def serve() -> None:
        async with chaos_proxy(
            parse_address(settings.to),
            settings.fault,
            listen=parse_address(settings.listen),
            messages=any(isinstance(parse_fault(text), MessageFault) for text in settings.fault),
            seed=settings.seed,
        ) as proxy:
            log.info("listening", address=str(proxy.address), to=settings.to)
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.seconds):
                    await stopped.wait()
            report.update(proxy.report.describe(proxy.now_s()))

    await run_until_stopped(serve(), stopped.set)
    return report
