"""The attacks: a round of each, and what the detector may answer to it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.access.tokens import new_token
from stream.session.close_codes import CloseCode
from tests.attacks.attacker import BINARY, DROPPED, TEXT, Peer, Target, frame

TRIES = 8  # of a round
HONEST = "door"  # the stream of the honest camera
PATHS = ("/v1/features", "/v1/detections", "/v1/streams", "/metrics")
KEPT_OUT = {DROPPED, "429", str(CloseCode.TRY_AGAIN_LATER.value)}  # too many, or too often


@dataclass(frozen=True, slots=True)
class Attack:
    """What one try does, and what may come of it besides being kept out."""

    attempt: Callable[[Target, int], Awaitable[str]]
    answers: frozenset[str]

    async def round(self, target: Target) -> Counter[str]:
        """Tries at once, and how many were answered how."""
        return Counter(await asyncio.gather(*(self._try(target, number) for number in range(TRIES))))

    async def _try(self, target: Target, number: int) -> str:
        try:
            return await self.attempt(target, number)
        except OSError:
            return DROPPED


@asynccontextmanager
async def _peer(target: Target, *, tls: bool = True) -> AsyncIterator[Peer]:
    peer = await Peer.connect(target, tls=tls)
    try:
        yield peer
    finally:
        peer.close()


@asynccontextmanager
async def _camera(target: Target) -> AsyncIterator[Peer]:
    """The stranger's, before its hello."""
    async with _peer(target) as peer:
        status = await peer.ask("/v1/features", target.stranger)
        if status != "101":
            raise ConnectionRefusedError(status)
        yield peer


async def guess_token(target: Target, number: int) -> str:
    async with _peer(target) as peer:
        path = PATHS[number % len(PATHS)]
        return await peer.ask(path, new_token(), upgrade=path in PATHS[:2])


async def take_name(target: Target, number: int) -> str:
    """By a hello that is right in all else, or as a camera that waits."""
    said = json.loads(target.hello) | {"stream": HONEST}
    if number % 2:
        said = {"type": "waiting", "protocol": 2, "stream": HONEST, "session": f"{number:032x}"}
        said |= {"source": "demo", "source_state": "lost", "reason": ""}
    async with _camera(target) as peer:
        peer.say(frame(TEXT, json.dumps(said).encode()))
        return await peer.closed()


async def keep_alive(target: Target, number: int) -> str:
    """And stay, as long as it may."""
    async with _peer(target) as peer:
        status = await peer.ask("/livez", upgrade=False)
        await asyncio.sleep(STAY_S)
        return status


async def say_no_hello(target: Target, number: int) -> str:
    async with _camera(target) as peer:
        try:
            async with asyncio.timeout(STAY_S):
                return await peer.closed()
        except TimeoutError:
            return "101"


async def consume(target: Target, number: int) -> str:
    async with _peer(target) as peer:
        status = await peer.ask("/v1/detections", target.consumer)
        await asyncio.sleep(STAY_S)  # it reads nothing
        return status


async def flood_hellos(target: Target, number: int) -> str:
    async with _camera(target) as peer:
        hello = json.loads(target.hello) | {"weights": f"{number:064x}"}
        peer.say(frame(TEXT, json.dumps(hello).encode()))
        return await peer.closed()


async def flood_profiles(target: Target, number: int) -> str:
    """A profile that the detector lacks and asks for; what comes is as large as one may be, and none."""
    codec = f"feature:quality=6,temporal=true,effort=2,keyframe_interval=250,profile={number:064x}"
    async with _camera(target) as peer:
        peer.say(frame(TEXT, json.dumps(json.loads(target.hello) | {"codec": codec}).encode()))
        received = await peer.receive()
        if received and b"profile_request" in received[1]:
            peer.say(frame(BINARY, bytes(2**20)))
        return await peer.closed()


async def oversize(target: Target, number: int) -> str:
    """A message of gigabytes, or one before the hello that is larger than any."""
    async with _camera(target) as peer:
        if number % 2:
            peer.say(bytes([TEXT, 0xFF]) + (2**32).to_bytes(8, "big") + bytes(4))
        else:
            peer.say(frame(TEXT, b" " * 2**20))
        return await peer.closed()


async def fragment(target: Target, number: int) -> str:
    async with _camera(target) as peer:
        peer.say(frame(0x01, b"{") + frame(0x00, b"") * 50_000)
        return await peer.closed()


async def send_unmasked(target: Target, number: int) -> str:
    async with _camera(target) as peer:
        peer.say(b"\x81\x05hello")
        return await peer.closed()


async def downgrade(target: Target, number: int) -> str:
    """To plain HTTP, with a token that would be good."""
    async with _peer(target, tls=False) as peer:
        return await peer.ask("/v1/detections", target.consumer)


async def come_from_a_foreign_page(target: Target, number: int) -> str:
    async with _peer(target) as peer:
        return await peer.ask("/v1/detections", target.consumer, Origin="https://evil.example")


async def use_a_revoked_token(target: Target, number: int) -> str:
    async with _peer(target) as peer:
        return await peer.ask("/v1/features", target.revoked)


STAY_S = 0.5
"""How long those stay who want to take places."""


def _answers(*expected: int) -> frozenset[str]:
    return frozenset(map(str, map(int, expected)))


ATTACKS = {
    "token guessing": Attack(guess_token, _answers(401)),
    "name take-over": Attack(take_name, _answers(CloseCode.STREAM_NOT_GRANTED)),
    "keep-alives": Attack(keep_alive, _answers(200)),
    "sessions without a hello": Attack(say_no_hello, _answers(101)),
    "consumers that read nothing": Attack(consume, _answers(101)),
    "hello flood": Attack(flood_hellos, _answers(CloseCode.WEIGHTS_DIFFER)),
    "profile flood": Attack(flood_profiles, _answers(CloseCode.PROFILE_REFUSED)),
    "oversized messages": Attack(oversize, _answers(CloseCode.MESSAGE_TOO_LARGE)),
    "empty fragments": Attack(fragment, _answers(CloseCode.POLICY_VIOLATION, CloseCode.MESSAGE_TOO_LARGE)),
    "frames without a mask": Attack(send_unmasked, _answers(CloseCode.PROTOCOL_ERROR)),
    "downgrade to ws": Attack(downgrade, frozenset()),
    "foreign origin": Attack(come_from_a_foreign_page, _answers(403)),
    "revoked token": Attack(use_a_revoked_token, _answers(401)),
}
