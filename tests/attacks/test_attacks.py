"""A round of every attack while an honest camera streams: it gets nowhere, and the camera keeps its frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from services.access.tokens import new_token
from services.detector.streams import Streams
from tests.attacks.attacker import DROPPED, Target
from tests.attacks.attacks import ATTACKS, HONEST, KEPT_OUT, TRIES
from tests.attacks.tokens import token_table
from tests.certificates import Authority
from tests.services.clips import FRAMES
from tests.services.conftest import Running
from tests.services.waiting import LIVENESS_S, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Attacked:
    """A detector with tokens and few places, and what its honest camera is told."""

    running: Running
    target: Target
    camera: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attacked(start_detector, tmp_path_factory) -> AsyncIterator[Attacked]:
    """One for all attacks: what the one before left behind is the next one's to meet."""
    folder = tmp_path_factory.mktemp("attacked")
    authority, file = Authority(folder), folder / "tokens.toml"
    honest, stranger, consumer, revoked = (new_token() for _ in range(4))
    file.write_text(token_table(honest, stranger, consumer, revoked))
    file.chmod(0o600)
    settings = {"tokens": str(file), "tls_cert": str(authority.sign())}
    async with start_detector(**settings, max_subscribers=4, max_http=4) as running:
        file.write_text(token_table(honest, stranger, consumer))
        await running.detector.reload()
        camera = {"token": honest, "tls_ca": str(authority.file), "stream": HONEST}
        target = Target(running.port, authority.file, stranger, consumer, revoked, hello="")
        yield Attacked(running, target, camera)


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_gets_nowhere(attacked, make_camera, make_hello, monkeypatch, name):
    monkeypatch.setattr("tests.attacks.attacks.STAY_S", 0.1)
    attack, streams = ATTACKS[name], attacked.running.detector.streams
    target = replace(attacked.target, hello=make_hello(stream="yard1").text())
    camera = make_camera(f"wss://127.0.0.1:{target.port}", **attacked.camera)
    before = connections(streams)
    async with asyncio.timeout(LIVENESS_S):
        streaming = asyncio.ensure_future(camera.run())
        await until(lambda: connections(streams) == before + 1)
        answers = await attack.round(target)
        await streaming
    assert camera.statistics.frame_counts.detected == FRAMES
    assert connections(streams) == before + 1
    assert [stream.name for stream in streams] == [HONEST]
    assert answers.total() == TRIES
    assert set(answers) <= attack.answers | KEPT_OUT
    assert set(answers) & (attack.answers or {DROPPED})


def connections(streams: Streams) -> int:
    """How often the honest camera has connected."""
    stream = streams.get(HONEST)
    return stream.status.connection if stream else 0
