"""Bearer tokens (RFC 6750), and what each grants: roles, stream names, and what a camera may cost."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Literal, TypeAlias, get_args

from stream.late_name import camera_name

Role: TypeAlias = Literal["camera", "consumer", "metrics", "page"]
"""What a token is for: to send a stream, to read streams by a program, to scrape /metrics, to see the live page."""
ROLES: tuple[Role, ...] = get_args(Role)

PREFIX = "spc_"
"""Every token begins so: whoever finds one in a text knows what it is."""
_RANDOM_BYTES = 32
_TOKEN = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")


@dataclass(frozen=True, slots=True)
class Quota:
    """What a camera may cost. None: as much as the detector allows any."""

    frames_per_s: float | None = None
    packet_bytes: int | None = None
    max_side: int | None = None  # of the network's input, in pixels
    preview: bool = True  # it may send small pictures
    profiles: bool = True  # it may send a calibration profile that is not at hand


@dataclass(frozen=True, slots=True)
class Grant:
    """What the bearer of a token may do. Two are equal if their tokens allow the same."""

    owner: str  # the token's name; empty: nobody's
    roles: frozenset[Role]
    streams: tuple[str, ...]  # names, or prefixes that end with *
    quota: Quota = Quota()
    hash: str = field(default="", repr=False)  # of the token, as it is stored; empty: there is none
    reserved: frozenset[str] = field(default=frozenset(), compare=False)  # names that other cameras own

    def may(self, role: Role) -> bool:
        return role in self.roles

    def may_stream(self, name: str) -> bool:
        """Whether the stream of that name is among those granted, or what comes late of one."""
        names = (name, camera_name(name))
        return any(
            name.startswith(stream[:-1]) if stream.endswith("*") else stream in names
            for stream in self.streams
        )

    def may_send(self, name: str) -> bool:
        """Whether a camera may send under that name: one that another token names in full is that one's."""
        return self.may_stream(name) and name not in self.reserved

    def owns(self, name: str) -> bool:
        """Whether the token names the stream in full, and so reserves it for its camera."""
        return name in self.streams

    @property
    def owned(self) -> Iterator[str]:
        """The names that it names in full."""
        return (stream for stream in self.streams if not stream.endswith("*"))


EVERYBODY = Grant("", frozenset(ROLES), ("*",))
"""What everybody is granted by a detector that asks for no token."""


def new_token() -> str:
    """A token that nobody can guess: 256 random bits, in the alphabet of URLs."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def is_token(text: str) -> bool:
    """Whether a text has the form of a token."""
    return _TOKEN.fullmatch(text) is not None


def token_hash(token: str) -> str:
    """SHA-256 of a token, in hexadecimal digits: what is stored.

    A slow hash, as passwords need, would gain nothing: there is no list of likely tokens to try.
    """
    return sha256(token.encode()).hexdigest()


class Tokens:
    """The tokens that a detector knows, by their hashes."""

    def __init__(self, grants: Iterable[Grant] = ()) -> None:
        known = list(grants)
        owned = {name for grant in known if grant.may("camera") for name in grant.owned}
        self._grants = {grant.hash: _with_reserved(grant, owned) for grant in known}

    def __len__(self) -> int:
        return len(self._grants)

    def __iter__(self) -> Iterator[Grant]:
        return iter(self._grants.values())

    def grant(self, token: str) -> Grant | None:
        """What a token grants; None if it is none of these.

        Takes as long whichever it is: each hash is compared whole, and all of them.
        """
        if not is_token(token):
            return None
        given, found = token_hash(token), None
        for hash_, grant in self._grants.items():
            if hmac.compare_digest(hash_, given):
                found = grant
        return found

    def stands(self, grant: Grant) -> bool:
        """Whether its token is still known, and grants the same."""
        return self._grants.get(grant.hash) == grant


def _with_reserved(grant: Grant, owned: Iterable[str]) -> Grant:
    """The grant, which knows the names that it covers with a prefix only, and another camera's token in full."""
    return replace(
        grant, reserved=frozenset(name for name in owned if grant.may_stream(name) and not grant.owns(name))
    )
