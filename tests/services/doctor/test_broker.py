"""A real broker that lets a service in, and others."""

from __future__ import annotations

import asyncio

import pytest

from services.doctor import broker
from services.doctor.broker import look_at_broker
from services.doctor.settings import DoctorDetectorSettings
from services.errors import ServiceError
from services.extras import MissingExtra
from tests.mosquitto import mosquitto, needs_mosquitto
from tests.ports import free_port
from tests.services.waiting import LIVENESS_S


async def look(url: str):
    async with asyncio.timeout(LIVENESS_S):
        return await look_at_broker(DoctorDetectorSettings.load({"mqtt": url}))


@needs_mosquitto
async def test_a_broker_that_lets_everybody_in(tmp_path):
    async with mosquitto(tmp_path) as running:
        finding = await look(running.url)
    assert (finding.level, finding.facts["port"]) == ("ok", running.port)


@needs_mosquitto
async def test_a_broker_that_wants_a_user(tmp_path):
    async with mosquitto(tmp_path, "allow_anonymous false") as running:
        finding = await look(running.url)
    assert (finding.level, "--mqtt-password-file" in finding.measured) == ("error", True)
    assert "start the broker" not in finding.advice


async def test_no_broker():
    finding = await look(f"mqtt://door:hunter2@127.0.0.1:{free_port()}")
    assert (finding.level, "hunter2" in repr(finding)) == ("error", False)
    assert "start the broker" in finding.advice


async def test_without_the_extra(monkeypatch):
    def absent(extra: str, what: str) -> ServiceError:
        raise MissingExtra(what, extra)

    monkeypatch.setattr(broker, "require", absent)
    with pytest.raises(MissingExtra, match=r"splitcast\[mqtt\]"):
        await look("mqtt://127.0.0.1")
