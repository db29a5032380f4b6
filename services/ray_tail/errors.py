"""What can go wrong with Ray."""

from __future__ import annotations

from services.errors import ServiceError
from stream.session.messages import RejectReason


class RayFailed(ServiceError):
    """Ray, or a replica in it, does not start; the message says why."""


class CallFailed(Exception):
    """A replica did not answer, and what it knew of the stream counts no more."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: RejectReason = reason
