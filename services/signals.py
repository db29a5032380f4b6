"""How a service hears that it should stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any


async def run_until_stopped(service: Coroutine[Any, Any, None], stop: Callable[[], None]) -> None:
    """Run `service`. SIGTERM or Ctrl-C calls `stop`, which lets it drain; a second signal ends it at once."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(service)
    stopping = False

    def on_signal() -> None:
        nonlocal stopping
        if stopping:
            task.cancel()
        stopping = True
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await task
    except asyncio.CancelledError:
        if not stopping:
            raise
