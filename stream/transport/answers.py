"""What a detector says on a camera's connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

from stream.errors import ConnectionLost, SessionError
from stream.session.camera import CameraEvent, CameraSession
from stream.transport.websocket import Link

T = TypeVar("T")


async def answers(link: Link, session: CameraSession[T]) -> AsyncIterator[CameraEvent[T]]:
    """What the detector says, as the session takes it, until the link is closed.

    Raises ConnectionLost, also where the detector breaks the protocol: it is told, and left.
    """
    async for data in link:
        try:
            event = session.receive(data)
        except SessionError as error:
            await link.close(error.code, error.reason)
            raise ConnectionLost(f"the detector broke the protocol: {error.reason}") from None
        yield event
