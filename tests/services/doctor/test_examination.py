"""Checks one after another: each with its own limit, and none hides the others."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest

from services.doctor import examination
from services.doctor.examination import Check, Result, examine, in_thread
from services.doctor.finding import Finding, fine
from services.errors import SettingsError
from stream.errors import SourceError
from tests.services.waiting import LIVENESS_S


async def look() -> Finding:
    return fine("well")


def failing(error: Exception):
    async def look() -> Finding:
        raise error

    return look


async def hang() -> Finding:
    await asyncio.Event().wait()
    raise AssertionError


async def results(*checks: Check, stopping: asyncio.Event | None = None) -> list[Result]:
    told: list[Result] = []
    async with asyncio.timeout(LIVENESS_S):
        await examine(checks, told.append, stopping or asyncio.Event())
    return told


@pytest.mark.parametrize(
    ("look_at", "limit_s", "words"),
    [
        (hang, 0.01, "longer than 0.01 s"),
        (failing(SourceError("no such source")), LIVENESS_S, "no such source"),
        (failing(SettingsError("--token-file: cannot read it")), LIVENESS_S, "--token-file: cannot read it"),
        (failing(OSError("the disk broke")), LIVENESS_S, "the disk broke"),
        (failing(TimeoutError("the system's own")), LIVENESS_S, "the system's own"),
        (failing(ModuleNotFoundError("No module", name="torch")), LIVENESS_S, r"splitcast\[torch\]"),
        (failing(ZeroDivisionError("a defect")), LIVENESS_S, "ZeroDivisionError: a defect"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_a_check_that_fails_is_an_error_and_the_next_is_made(look_at, limit_s, words):
    first, second = await results(Check("first", limit_s, look_at), Check("second", LIVENESS_S, look))
    assert first.finding.level == "error"
    assert re.search(words, first.finding.measured)
    assert (second.check, second.finding.level) == ("second", "ok")


async def test_a_check_that_does_not_let_go_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(examination, "GRACE_S", 0.01)
    free = asyncio.Event()

    async def clinging() -> Finding:
        try:
            return await hang()
        finally:
            await free.wait()

    first, second = await results(Check("first", 0.01, clinging), Check("second", LIVENESS_S, look))
    free.set()
    assert (first.finding.level, second.finding.level) == ("error", "ok")


async def test_a_blocked_thread_holds_up_nobody():
    free = threading.Event()

    async def blocked() -> Finding:
        await in_thread(free.wait)
        raise AssertionError

    first, second = await results(Check("first", 0.05, blocked), Check("second", LIVENESS_S, look))
    free.set()
    assert (first.finding.level, second.finding.level) == ("error", "ok")


async def test_a_stop_ends_what_is_looked_at_and_leaves_out_the_rest():
    stopping = asyncio.Event()

    async def interrupted() -> Finding:
        stopping.set()
        return await hang()

    checks = [
        Check(name, LIVENESS_S, look_at) for name, look_at in (("a", look), ("b", interrupted), ("c", look))
    ]
    assert [result.check for result in await results(*checks, stopping=stopping)] == ["a"]
