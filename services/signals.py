"""How a service hears that it should stop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

_STOPPING = (signal.SIGTERM, signal.SIGINT)


def end_on_signals(log_format: str) -> None:
    """From now on SIGTERM and Ctrl-C end the process with exit code 0 and one line of the log.

    For a program that has nothing to drain yet: it still imports. Nothing is raised, as a library might take that for a
    failure of its own, and nothing is asked of the logs, which may not be there, or be what was interrupted.
    """

    def on_signal(number: int, _frame: FrameType | None) -> None:
        try:
            os.write(2, _last_words(signal.Signals(number).name, log_format).encode())
        finally:
            os._exit(0)

    for number in _STOPPING:
        signal.signal(number, on_signal)


def await_reloads() -> None:
    """From now on SIGHUP does nothing, until `run_until_stopped` hears it.

    For a program that still imports: what would be read anew it has not read yet. On a terminal SIGHUP still ends it.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _last_words(name: str, log_format: str) -> str:
    event, timestamp = "ended by a signal", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    if log_format == "text" or (log_format == "auto" and sys.stderr is not None and sys.stderr.isatty()):
        return f"{timestamp} [info     ] {event} signal={name}\n"
    facts = {"event": event, "signal": name, "logger": __name__, "level": "info", "timestamp": timestamp}
    return f"{json.dumps(facts)}\n"


def take_signals_back() -> None:
    """Handle signals as before, where a library has put itself in between, which prints its stack at each.

    To be called on the main thread; on another nothing happens.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _STOPPING:
            signal.signal(number, signal.getsignal(number))
            signal.siginterrupt(number, False)  # as asyncio has it


async def run_until_stopped(
    service: Coroutine[Any, Any, None],
    stop: Callable[[], None],
    reload: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Run `service`. SIGTERM or Ctrl-C calls `stop`, which lets it drain; a second signal ends it at once.

    SIGHUP calls `reload`, one at a time; without one it ends the process, as that of a closed terminal does.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(service)
    stopping = False

    def on_signal() -> None:
        nonlocal stopping
        if stopping:
            task.cancel()
        stopping = True
        stop()

    before = {number: signal.getsignal(number) for number in (*_STOPPING, signal.SIGHUP)}
    for number in _STOPPING:
        loop.add_signal_handler(number, on_signal)
    reloads = asyncio.Event()
    reloading = asyncio.ensure_future(_reload_on(reloads, reload)) if reload else None
    if reload:
        loop.add_signal_handler(signal.SIGHUP, reloads.set)
    try:
        await task
    except asyncio.CancelledError:
        if not stopping:
            raise
    finally:
        if reloading:
            reloading.cancel()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


async def _reload_on(asked: asyncio.Event, reload: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Reload whenever it is asked for, for ever: once more for all that is asked while one is under way."""
    while True:
        await asked.wait()
        asked.clear()
        try:
            await reload()
        except Exception:  # a defect of ours, which must not keep the next one from working
            log.exception("reload failed")
