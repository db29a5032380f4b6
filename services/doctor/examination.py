"""Runs checks one after another: each has a time limit of its own, and none that fails hides the others.

One after another, as several of them measure how fast this machine or its network is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from codec.errors import CodecError
from services.doctor.finding import Finding, wrong
from services.errors import ServiceError
from services.extras import lacking
from stream.errors import StreamError
from stream.tasks.worker import Worker

GRACE_S = 5.0  # for a check that was given up to let go of what it holds

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at."""

    name: str
    limit_s: float
    look: Callable[[], Awaitable[Finding]]


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found."""

    check: str
    finding: Finding
    took_s: float


async def examine(checks: Sequence[Check], tell: Callable[[Result], None], stopping: asyncio.Event) -> None:
    """Tell what each check found as soon as it is known, until `stopping` is set."""
    for check in checks:
        began_s = time.monotonic()
        finding = await _unless(stopping, check)
        if finding is None:
            break
        tell(Result(check.name, finding, time.monotonic() - began_s))
    _forget_threads()


async def in_thread(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """What a function returns or raises that blocks, on a thread of its own: one that hangs holds up no other."""
    worker = Worker("doctor")
    try:
        return await worker.run(function, *arguments, **options)
    finally:
        worker.close()


async def _unless(stopping: asyncio.Event, check: Check) -> Finding | None:
    """What the check finds; None where it was stopped."""
    looking = asyncio.ensure_future(_find(check))
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([looking, stopped], timeout=check.limit_s, return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set():
            return None
        if looking.done():
            return looking.result()
        return wrong(f"this took longer than {check.limit_s:g} s, and was given up")
    finally:
        stopped.cancel()
        looking.cancel()
        # What it holds may hang, too: a file of a server that is gone cannot even be closed.
        await asyncio.wait([looking], timeout=GRACE_S)


async def _find(check: Check) -> Finding:
    try:
        return await check.look()
    except ModuleNotFoundError as error:
        return wrong(str(lacking(error, "this", None) or error))
    except (StreamError, ServiceError, CodecError, OSError) as error:
        return wrong(_words(error))
    except Exception as error:  # a defect of ours, or of a driver: the other checks may say more
        return wrong(
            f"the check itself failed: {type(error).__name__}: {error}", "tell who maintains Splitcast"
        )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _forget_threads() -> None:
    """Let the event loop end without those of its threads that still wait, as for a name server."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
