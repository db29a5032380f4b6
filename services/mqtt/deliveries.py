"""Messages on their way to the broker: some at a time, so that none waits for the confirmation of another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from services.mqtt.client import BrokerClient, Refused
from services.mqtt.topics import Outgoing

WINDOW = 16  # messages that are on their way at a time
SEND_S = 10.0  # a broker that takes a message for longer is one that stands still

OnEnd = Callable[[Outgoing, bool], None]
OnRefusal = Callable[[Outgoing, str], None]


class Deliveries:
    """What one connection delivers.

    For each message is called once `on_end`, with whether it has arrived, or `on_refusal`, with why the broker does not
    take it.
    """

    def __init__(self, client: BrokerClient, on_end: OnEnd, on_refusal: OnRefusal) -> None:
        self._client, self._on_end, self._on_refusal = client, on_end, on_refusal
        self._places = asyncio.Semaphore(WINDOW)
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def until_place(self) -> None:
        """Wait until another message may start."""
        await self._places.acquire()
        self._places.release()

    async def start(self, message: Outgoing) -> None:
        """Send a message, after those that were started before."""
        await self._places.acquire()
        task = asyncio.ensure_future(_deliver(self._client, message))
        self._tasks[task] = None
        task.add_done_callback(partial(self._end, message))
        await asyncio.sleep(0)  # it has begun

    async def until_failure(self) -> None:
        """Wait for ever. Raises what kept a message from arriving."""
        await self._failure

    async def until_empty(self) -> None:
        """Wait until everything has arrived that was started."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def abort(self) -> None:
        """Let what is on its way end as not arrived, the newest first."""
        tasks = list(self._tasks)[::-1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # each has told its end
        self._failure.cancel()

    def _end(self, message: Outgoing, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._places.release()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Refused):
            self._on_refusal(message, str(error))
            return
        if error and not self._failure.done():
            self._failure.set_exception(error)
        self._on_end(message, not task.cancelled() and error is None)


@asynccontextmanager
async def deliveries(client: BrokerClient, on_end: OnEnd, on_refusal: OnRefusal) -> AsyncIterator[Deliveries]:
    """Deliveries, of which none is left on its way afterwards."""
    made = Deliveries(client, on_end, on_refusal)
    try:
        yield made
    finally:
        await made.abort()


async def _deliver(client: BrokerClient, message: Outgoing) -> None:
    """Raises MqttError where it cannot be sent, or a broker that has to confirm it does not; Refused."""
    qos, retain = message.delivery
    await client.publish(message.topic, message.payload.encode(), qos=qos, retain=retain, timeout=SEND_S)
