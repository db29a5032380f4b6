"""Who may send under which stream name. No clock: times are arguments, on a steady clock."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from stream.errors import SessionError
from stream.session.close_codes import CloseCode

RESERVED_KEPT = 1024  # names of cameras that are lost


@dataclass(frozen=True, slots=True, eq=False)
class NameClaim:
    """One connection's hold of a name. The secret is the camera's, None where it has none."""

    name: str
    secret: str | None = field(repr=False)
    on_replaced: Callable[[], None] = field(repr=False)
    same_camera: bool  # the one that held the name before


@dataclass(frozen=True, slots=True)
class _Reservation:
    secret: str = field(repr=False)
    until_ns: int


class Names:
    """Each name is held by one connection. A camera that comes back replaces its own old connection.

    One that is lost keeps its name for `reserve_s`: others wait. Cameras without a secret have no such rights.
    """

    def __init__(self, max_held: int, reserve_s: float) -> None:
        self._max_held, self._reserve_ns = max_held, round(reserve_s * 1e9)
        self._held: dict[str, NameClaim] = {}
        self._reserved: OrderedDict[str, _Reservation] = OrderedDict()  # the longest lost first

    def __len__(self) -> int:
        """Names that are held."""
        return len(self._held)

    def check(self, name: str, secret: str | None, now_ns: int) -> None:
        """Raise SessionError where a camera with this secret cannot have the name."""
        held, reserved = self._held.get(name), self._reserved.get(name)
        if held:
            if not _is_same(held.secret, secret):
                raise SessionError(
                    CloseCode.STREAM_TAKEN, f"stream {name!r} is sent by another camera; choose --stream"
                )
            return
        if reserved and now_ns < reserved.until_ns and not _is_same(reserved.secret, secret):
            left_s = (reserved.until_ns - now_ns) / 1e9
            raise SessionError(
                CloseCode.STREAM_TAKEN,
                f"stream {name!r} is kept for {left_s:.0f} s more for its camera, which is lost; choose --stream",
            )
        if len(self._held) >= self._max_held:
            raise SessionError(
                CloseCode.TOO_MANY_STREAMS, f"{self._max_held} cameras are connected (--max-streams)"
            )

    def take(self, name: str, secret: str | None, now_ns: int, on_replaced: Callable[[], None]) -> NameClaim:
        """Hold a name; an older connection of the same camera is told that it was replaced. Raises as `check`."""
        self.check(name, secret, now_ns)
        held, reserved = self._held.get(name), self._reserved.pop(name, None)
        same = held is not None or (reserved is not None and _is_same(reserved.secret, secret))
        self._held[name] = claim = NameClaim(name, secret, on_replaced, same)
        if held:
            held.on_replaced()
        return claim

    def holds(self, claim: NameClaim) -> bool:
        """Whether nobody has replaced this connection."""
        return self._held.get(claim.name) is claim

    def release(self, claim: NameClaim, now_ns: int, *, reserve: bool) -> None:
        """Let a name go that this claim holds, for its camera alone for a while if it is to be reserved."""
        assert self.holds(claim)
        del self._held[claim.name]
        if reserve and claim.secret is not None and self._reserve_ns:
            self._reserved[claim.name] = _Reservation(claim.secret, now_ns + self._reserve_ns)
            if len(self._reserved) > RESERVED_KEPT:
                self._reserved.popitem(last=False)


def _is_same(secret: str | None, other: str | None) -> bool:
    """Whether two cameras are one; those without a secret are nobody's."""
    return secret is not None and other is not None and hmac.compare_digest(secret, other)
