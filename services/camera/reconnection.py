"""When a camera that has lost its detector tries again, and whether it does at all."""

from __future__ import annotations

from random import Random
from typing import Literal, TypeAlias, get_args

from services.errors import DetectorRefused
from stream.errors import ConnectionLost, TlsFailed
from stream.session.close_codes import PERMANENT, CloseCode
from stream.tasks.backoff import Backoff, Failure

LossReason: TypeAlias = Literal["silent", "broken", "going_away", "refused", "closed", "resized"]
"""Why a detector was lost.

silent: nothing came from it. broken: the connection broke. going_away: it stops, or is not ready. refused: it does not
take this camera. closed: it closed for another reason. resized: the camera left, for pictures of another size.
"""
LOSS_REASONS: tuple[LossReason, ...] = get_args(LossReason)

_GOING_AWAY = frozenset({CloseCode.GOING_AWAY, CloseCode.TRY_AGAIN_LATER})
_TAKEN = frozenset({CloseCode.STREAM_TAKEN, CloseCode.TOO_MANY_STREAMS, CloseCode.REPLACED})
_DENIED = frozenset({CloseCode.STREAM_NOT_GRANTED})  # by a token: another may be given
_DENIED_STATUS = frozenset({401, 403})
_NOT_READY_STATUS = frozenset({429, 502, 503, 504})  # a proxy's, whose detector is away
_TRIES = 2  # a hello may be damaged on its way, or an answer be foreign


def loss_reason(lost: ConnectionLost) -> LossReason:
    """The loss as it is counted."""
    if not lost.answered:
        return "silent"
    if lost.code in _GOING_AWAY or lost.status in _NOT_READY_STATUS:
        return "going_away"
    if isinstance(lost, TlsFailed) or lost.status is not None or lost.code in {*_TAKEN, *_DENIED, *PERMANENT}:
        return "refused"
    return "broken" if lost.code == 1006 else "closed"


def failure_of(lost: ConnectionLost, accepted: bool) -> Failure:
    """What the loss says of the detector, which had `accepted` this camera or had not."""
    if not lost.answered:
        return Failure.UNREACHABLE
    if lost.status in _DENIED_STATUS or lost.code in _DENIED:
        return Failure.DENIED
    if lost.status is not None:
        return Failure.NOT_READY if lost.status in _NOT_READY_STATUS else Failure.REFUSED
    if lost.code in _TAKEN or isinstance(lost, TlsFailed):
        return Failure.REFUSED
    # A session that breaks off, for what reason ever, may go on; a handshake that is closed will be closed again.
    closed = lost.code not in _GOING_AWAY and lost.code != 1006
    return Failure.REFUSED if closed and not accepted else Failure.NOT_READY


class Reconnection:
    """Decides after each lost connection. Takes the time as an argument, in seconds of any one clock."""

    def __init__(self, random: Random) -> None:
        self._backoff = Backoff(random)
        self._ever_accepted = False
        self._refusals = 0  # in a row, that the same settings will meet again

    def next_delay_s(
        self, lost: ConnectionLost, now_s: float, *, accepted: bool, after_s: float | None = None
    ) -> float:
        """Seconds to wait before the next attempt; `after_s` is what the detector asked for.

        Raises DetectorRefused where a detector that never accepted this camera will not do so.
        """
        if accepted:
            self._ever_accepted = True
            # Replaced by a copy of this camera, it would replace that one for ever, and that one this.
            if lost.code != CloseCode.REPLACED:
                self._backoff.reset()
        self._refusals = self._refusals + 1 if lost.code in PERMANENT else 0
        if self._refusals == _TRIES and not self._ever_accepted:
            raise DetectorRefused(lost.code, lost.reason)
        return self._backoff.next_delay_s(failure_of(lost, accepted), now_s, after_s)
