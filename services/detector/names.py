"""Who may send under which stream name. No clock: times are arguments, on a steady clock."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from services.access.tokens import EVERYBODY, Grant
from stream.errors import SessionError
from stream.late_name import is_late
from stream.session.close_codes import CloseCode

RESERVED_KEPT = 1024  # names of cameras that are lost


@dataclass(frozen=True, slots=True, eq=False)
class Sender:
    """Who wants a name: a camera by its secret, None where it has none, and by what its token grants."""

    secret: str | None = field(repr=False)
    grant: Grant = field(default=EVERYBODY, repr=False)
    on_replaced: Callable[[], None] = field(default=lambda: None, repr=False)
    on_crowded: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called of a late stream, whose place a live camera needs: it is to leave soon."""
    is_silent: Callable[[], bool] = field(default=lambda: False, repr=False)
    """Whether nothing comes from it any more, so that it may be a connection that died unnoticed."""

    def is_same_camera(self, other: Sender) -> bool:
        """Whether two are one camera by its secret; those without one are nobody's."""
        return (
            self.secret is not None
            and other.secret is not None
            and hmac.compare_digest(self.secret, other.secret)
        )

    def has_same_token(self, other: Sender) -> bool:
        return bool(self.grant.owner) and self.grant.owner == other.grant.owner

    def owns_alone(self, name: str, other: Sender) -> bool:
        """Whether its token names the stream in full, and the other's does not."""
        return self.grant.owns(name) and not other.grant.owns(name)


@dataclass(frozen=True, slots=True, eq=False)
class NameClaim:
    """One connection's hold of a name."""

    name: str
    sender: Sender
    same_camera: bool  # the one that held the name before


@dataclass(frozen=True, slots=True)
class _Reservation:
    sender: Sender
    until_ns: int


class Names:
    """Each name is held by one connection. A camera that comes back replaces its own old connection.

    One that is lost keeps its name for `reserve_s`: others wait. Cameras without a secret have no such rights, but by
    their tokens: another camera with the same token has the name at once if the one that holds it is silent, or lost,
    and one whose token names the stream in full has it from whoever had it by a prefix. Where there is no room for a
    live camera, a late stream makes way, which still holds its name until it has left. `stands` tells whether a
    grant still holds: nothing is kept for a token that was revoked.
    """

    def __init__(
        self, max_held: int, reserve_s: float, stands: Callable[[Grant], bool] = lambda grant: True
    ) -> None:
        self._stands = stands
        self._max_held, self._reserve_ns = max_held, round(reserve_s * 1e9)
        self._held: dict[str, NameClaim] = {}
        self._leaving: set[NameClaim] = set()  # late streams that were told to make way
        self._reserved: OrderedDict[str, _Reservation] = OrderedDict()  # the longest lost first

    def __len__(self) -> int:
        """Names that are held."""
        return len(self._held)

    def check(self, name: str, sender: Sender, now_ns: int) -> None:
        """Raise SessionError where this camera cannot have the name."""
        held = self._held.get(name)
        if held:
            if not _may_replace(name, held.sender, sender):
                raise SessionError(
                    CloseCode.STREAM_TAKEN, f"stream {name!r} is sent by another camera; choose --stream"
                )
            if held not in self._leaving:
                return
        reserved = self._reservation(name, now_ns)
        if reserved and not _may_follow(name, reserved.sender, sender):
            left_s = (reserved.until_ns - now_ns) / 1e9
            raise SessionError(
                CloseCode.STREAM_TAKEN,
                f"stream {name!r} is kept for {left_s:.0f} s more for its camera, which is lost; choose --stream",
            )
        if held or (self._is_full and (is_late(name) or self._late() is None)):
            raise SessionError(
                CloseCode.TOO_MANY_STREAMS, f"{self._max_held} cameras are connected (--max-streams)"
            )

    def take(self, name: str, sender: Sender, now_ns: int) -> NameClaim:
        """Hold a name; an older connection of the same camera is told that it was replaced. Raises as `check`."""
        self.check(name, sender, now_ns)
        if self._is_full and name not in self._held and (late := self._late()):
            self._leaving.add(late)
            late.sender.on_crowded()
        held, reserved = self._held.get(name), self._reserved.pop(name, None)
        before = held or reserved
        same = before is not None and (
            sender.is_same_camera(before.sender) or sender.has_same_token(before.sender)
        )
        self._held[name] = claim = NameClaim(name, sender, same)
        if held:
            held.sender.on_replaced()
        return claim

    def holds(self, claim: NameClaim) -> bool:
        """Whether nobody has replaced this connection."""
        return self._held.get(claim.name) is claim

    def release(self, claim: NameClaim, now_ns: int, *, reserve: bool) -> None:
        """Let a name go that this claim holds, for its camera alone for a while if it is to be reserved."""
        assert self.holds(claim)
        del self._held[claim.name]
        self._leaving.discard(claim)
        is_known = claim.sender.secret is not None or claim.sender.grant.owner
        if reserve and is_known and self._reserve_ns:
            self._reserved[claim.name] = _Reservation(claim.sender, now_ns + self._reserve_ns)
            if len(self._reserved) > RESERVED_KEPT:
                self._reserved.popitem(last=False)

    @property
    def _is_full(self) -> bool:
        return len(self._held) - len(self._leaving) >= self._max_held

    def _late(self) -> NameClaim | None:
        """A late stream that may make way."""
        claims = (claim for claim in self._held.values() if claim not in self._leaving)
        return next((claim for claim in claims if is_late(claim.name)), None)

    def _reservation(self, name: str, now_ns: int) -> _Reservation | None:
        reserved = self._reserved.get(name)
        if reserved and now_ns < reserved.until_ns and self._stands(reserved.sender.grant):
            return reserved
        return None


def _may_replace(name: str, held: Sender, other: Sender) -> bool:
    """Whether one may have the name that another's connection holds."""
    return (
        other.is_same_camera(held)
        or other.owns_alone(name, held)
        or (other.has_same_token(held) and held.is_silent())
    )


def _may_follow(name: str, lost: Sender, other: Sender) -> bool:
    """Whether one may have the name that is kept for another, which is lost."""
    return other.is_same_camera(lost) or other.owns_alone(name, lost) or other.has_same_token(lost)
