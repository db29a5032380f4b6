"""Who has one of a limited number of places, and who makes way when there is none left. No I/O and no clock."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Literal, TypeAlias

from stream.leaky_bucket import LeakyBucket

ADDRESSES_KEPT = 4096  # whose rates are known, and of those who are no strangers

TooOften: TypeAlias = Literal["address", "strangers"]
"""Why a connection comes too often: its address makes many, or all strangers together do."""

Refusal: TypeAlias = Literal["full", "address"]
"""Why there is no place: all are taken by those who need not go, or the address has as many as one may have."""


@dataclass(slots=True, eq=False)
class Place:
    """What one connection from an address holds."""

    address: str  # as `address_of` has it
    heard_ns: Callable[[], int]  # when something came from it last
    make_way: Callable[[], None]  # leave: it is somebody else's now
    may_go: Callable[[], bool] = lambda: True  # whether it makes way at all


class Places:
    """So many at a time, of which one address may hold `per_address`; None: all.

    When all are taken, the connection that has been idle the longest makes way for a new one, among those of the
    address that holds the most: so whoever takes many takes them from himself. `own` says whether a new connection
    may take the place of an older one of its own address too; if not, it takes one only of an address that holds at
    least two more, so that peers who all come back do not chase each other for ever.
    """

    def __init__(self, capacity: int, per_address: int | None = None, *, own: bool = True) -> None:
        self.capacity = capacity
        self._per_address, self._own = per_address, own
        self._taken: set[Place] = set()
        self._of_address: Counter[str] = Counter()

    def __len__(self) -> int:
        """Places that are taken."""
        return len(self._taken)

    def take(self, place: Place) -> Refusal | None:
        """Take a place, perhaps somebody's who then makes way; or why there is none."""
        theirs = self._of_address[place.address]
        if self._per_address is not None and theirs >= self._per_address:
            if not (self._own and self._evict({place.address})):
                return "address"
        elif len(self._taken) >= self.capacity and not self._evict(self._who_yields(theirs)):
            return "full"
        self._taken.add(place)
        self._of_address[place.address] += 1
        return None

    def release(self, place: Place) -> None:
        """Give a place back; one that made way has been given back already."""
        if place in self._taken:
            self._taken.discard(place)
            self._of_address[place.address] -= 1
            if not self._of_address[place.address]:
                del self._of_address[place.address]

    def _who_yields(self, theirs: int) -> set[str]:
        """The addresses that hold the most of those places whose holders may go."""
        held = Counter(place.address for place in self._taken if place.may_go())
        if not self._own:
            held = Counter({address: count for address, count in held.items() if count >= theirs + 2})
        most = max(held.values(), default=0)
        return {address for address, count in held.items() if count == most}

    def _evict(self, addresses: set[str]) -> bool:
        """Let the one that has been idle the longest make way; whether there was one."""
        candidates = [place for place in self._taken if place.address in addresses and place.may_go()]
        if not candidates:
            return False
        idlest = min(candidates, key=lambda place: place.heard_ns())
        self.release(idlest)
        idlest.make_way()
        return True


class AddressRates:
    """How often each address may do something: `per_s` on average, and `burst` at once."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._interval_ns, self._burst = round(1e9 / per_s), burst
        self._buckets: OrderedDict[str, LeakyBucket] = OrderedDict()  # the one used longest ago first

    def take(self, address: str, now_ns: int) -> bool:
        """Whether what the address does at `now_ns`, on any steady clock, is within the bounds."""
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = LeakyBucket(self._interval_ns, self._burst)
            if len(self._buckets) > ADDRESSES_KEPT:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(address)
        return bucket.take(now_ns)


class ConnectionRates:
    """How often connections may come: from each address, and from all those together that are not known.

    So those who come from very many addresses keep nobody out who has been here before.
    """

    def __init__(self, of_address: AddressRates, of_strangers: LeakyBucket) -> None:
        self._of_address, self._of_strangers = of_address, of_strangers
        self._known: OrderedDict[str, None] = OrderedDict()  # the one that was here longest ago first

    def know(self, address: str) -> None:
        """The address is no stranger's."""
        self._known[address] = None
        self._known.move_to_end(address)
        if len(self._known) > ADDRESSES_KEPT:
            self._known.popitem(last=False)

    def refusal(self, address: str, now_ns: int) -> TooOften | None:
        """Count a connection that comes at `now_ns`, on any steady clock; None where it may."""
        if not self._of_address.take(address, now_ns):
            return "address"
        if address not in self._known and not self._of_strangers.take(now_ns):
            return "strangers"
        return None


def address_of(peer: Any) -> str:
    """The part of a socket's peer address that one machine holds: of IPv6 a network of 64 bits (RFC 6177)."""
    host = str(peer[0]) if isinstance(peer, tuple) else str(peer)
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ip_network((address, 64), strict=False))
