"""`splitcast replay`: recorded packets to a detector, as often as one likes, with the same detections each time."""

from __future__ import annotations

import asyncio
import secrets
import time

from services.errors import NothingDetected
from services.logs import to_json
from services.recording.player import Player, recording_paths
from services.replay.connection import Destination
from services.replay.ledger import Ledger
from services.replay.line import Line
from services.replay.settings import FLAT_OUT, ReplaySettings
from services.replay.settle import settle_all
from stream.errors import NoRecording


def run_replay(settings: ReplaySettings) -> None:
    """Replay, and print what became of the packets.

    Raises OSError, NoRecording, SettingsError for the recording, DetectorRefused, NothingDetected.
    """
    started_s = time.monotonic()
    ledger = asyncio.run(replay(settings))
    seconds = time.monotonic() - started_s
    print(to_json(account(ledger, seconds)) if settings.as_json else "\n".join(readable(ledger, seconds)))
    if not ledger.detected:
        raise NothingDetected(f"none of {ledger.packets} recorded packets was detected on; the log says why")


async def replay(settings: ReplaySettings) -> Ledger:
    """What became of every packet. Raises as `run_replay` does, but NothingDetected."""
    paths = await asyncio.to_thread(recording_paths, settings.recording, settings.of)
    line = Line(Player(paths), None if settings.speed == FLAT_OUT else float(settings.speed))
    try:
        if await line.peek() is None:
            raise NoRecording(f"{settings.recording} was cut before its first packet")
        ledger = Ledger(watched=not settings.no_digest)
        destination = Destination(settings, settings.detector, settings.stream, settings.window)
        await settle_all(destination, line, ledger, secrets.token_hex(16))
    finally:
        line.close()
    return ledger


def account(ledger: Ledger, seconds: float) -> dict[str, object]:
    """The account as JSON has it: packets = detected + the sum of rejected."""
    return {
        "packets": ledger.packets,
        "detected": ledger.detected,
        "rejected": dict(ledger.rejected),
        "sent": ledger.sent,
        "objects": ledger.objects,
        "seconds": round(seconds, 3),
        "sha256": ledger.digest.text if ledger.watched else None,
    }


def readable(ledger: Ledger, seconds: float) -> list[str]:
    """The same as lines for people."""
    causes = "".join(f", {count} {reason}" for reason, count in ledger.rejected.most_common())
    again = ledger.sent - ledger.packets
    lines = [
        f"{ledger.packets} packets: {ledger.detected} detected{causes}; {ledger.objects} objects",
        f"{seconds:.1f} s, {ledger.packets / max(seconds, 1e-3):.1f} packets/s"
        + (f"; {again} sent again" if again > 0 else ""),
    ]
    return [*lines, f"detections {ledger.digest.text}"] if ledger.watched else lines
