from __future__ import annotations

import pytest

from stream.leaky_bucket import LeakyBucket
from stream.transport.places import (
    ADDRESSES_KEPT,
    AddressRates,
    ConnectionRates,
    Place,
    Places,
    address_of,
)


class Peer:
    """Somebody with a place, who remembers whether he had to leave it."""

    def __init__(self, address: str, heard_ns: int = 0, may_go: bool = True) -> None:
        self.left = False
        self.place = Place(address, lambda: heard_ns, self._leave, lambda: may_go)

    def _leave(self) -> None:
        assert not self.left
        self.left = True


def seated(places: Places, *peers: Peer) -> list[Peer]:
    for peer in peers:
        assert places.take(peer.place) is None
    return list(peers)


def test_the_longest_idle_makes_way():
    places = Places(3)
    old, oldest, new = seated(places, Peer("a", 2), Peer("a", 1), Peer("a", 3))
    seated(places, Peer("a", 4))
    assert (old.left, oldest.left, new.left) == (False, True, False)
    assert len(places) == 3


def test_who_takes_many_takes_them_from_himself():
    places = Places(3)
    honest, *greedy = seated(places, Peer("honest", 0), Peer("greedy", 5), Peer("greedy", 6))
    for heard_ns in range(7, 20):
        seated(places, Peer("greedy", heard_ns))
    assert not honest.left
    assert all(peer.left for peer in greedy)


def test_a_newcomer_gets_the_place_of_who_holds_the_most():
    places = Places(3)
    honest, *greedy = seated(places, Peer("honest", 0), Peer("greedy", 5), Peer("greedy", 6))
    seated(places, Peer("other", 7))
    assert (honest.left, [peer.left for peer in greedy]) == (False, [True, False])


def test_who_may_not_go_stays():
    places = Places(2)
    seated(places, Peer("a", may_go=False), Peer("a", may_go=False))
    assert places.take(Peer("b").place) == "full"
    assert len(places) == 2


def test_who_may_go_makes_way_though_others_hold_more_who_may_not():
    places = Places(4)
    *_, waiting = seated(places, *(Peer("a", may_go=False) for _ in range(3)), Peer("b"))
    seated(places, Peer("c"))
    assert waiting.left


def test_an_address_has_no_more_than_its_share():
    places = Places(9, per_address=2)
    first, *_ = seated(places, Peer("a", 1), Peer("a", 2), Peer("b", 0))
    seated(places, Peer("a", 3))  # in place of its own
    assert first.left
    assert len(places) == 3
    settled = Places(9, per_address=1)
    seated(settled, Peer("a", may_go=False))
    assert settled.take(Peer("a").place) == "address"


def test_peers_that_come_back_do_not_chase_each_other():
    places = Places(4, own=False)
    seated(places, *(Peer("a", number) for number in range(3)), Peer("b"))
    assert places.take(Peer("a").place) == "full"
    seated(places, Peer("b"))  # now each has two
    assert places.take(Peer("a").place) == places.take(Peer("b").place) == "full"
    uneven = Places(3, own=False)
    seated(uneven, Peer("a"), Peer("a"), Peer("b"))
    assert uneven.take(Peer("b").place) == "full"  # else "a" would be next to take one of its two
    alone = Places(3, per_address=1, own=False)
    [peer] = seated(alone, Peer("a"))
    assert (alone.take(Peer("a").place), peer.left) == ("address", False)


def test_a_place_is_given_back_once():
    places = Places(2)
    peers = seated(places, Peer("a", 1), Peer("a", 2))
    seated(places, Peer("a", 3))
    places.release(peers[0].place)  # which has made way
    assert len(places) == 2
    places.release(peers[1].place)
    assert len(places) == 1
    bounded = Places(9, per_address=1)
    [peer] = seated(bounded, Peer("a"))
    for _ in range(2):
        bounded.release(peer.place)
    seated(bounded, Peer("a", may_go=False))
    assert bounded.take(Peer("a").place) == "address"


def test_nothing_is_kept_of_an_address_that_has_left():
    places = Places(2)
    for number in range(3):
        [peer] = seated(places, Peer(str(number)))
        places.release(peer.place)
    assert not places._of_address


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.7", 5), "192.0.2.7"),
        (("::ffff:192.0.2.7", 5, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("/run/socket", "/run/socket"),
    ],
)
def test_an_address_is_what_one_machine_holds(peer, address):
    assert address_of(peer) == address


def test_each_address_has_a_rate_of_its_own():
    rates = AddressRates(1, 2)
    assert [rates.take("a", 0) for _ in range(3)] == [True, True, False]
    assert rates.take("b", 0)
    assert rates.take("a", 10**9)


def test_rates_are_known_of_so_many_addresses():
    rates = AddressRates(1, 1)
    for number in range(ADDRESSES_KEPT):
        rates.take(str(number), 0)
    assert not rates.take("0", 0)  # which was asked for last, now
    rates.take("new", 0)
    assert rates.take("1", 0)  # forgotten
    assert not rates.take("0", 0)


def test_strangers_together_have_a_rate_and_who_is_known_does_not_share_it():
    rates = ConnectionRates(AddressRates(1, 2), LeakyBucket(10**9, 2))
    assert [rates.refusal(str(number), 0) for number in range(3)] == [None, None, "strangers"]
    rates.know("camera")
    assert [rates.refusal("camera", 0) for _ in range(3)] == [None, None, "address"]
    assert [rates.refusal("new", second * 10**9) for second in (0, 1)] == ["strangers", None]


def test_so_many_addresses_are_known():
    rates = ConnectionRates(AddressRates(1, 1), LeakyBucket(10**12, 1))
    assert rates.refusal("stranger", 0) is None
    for number in range(ADDRESSES_KEPT):
        rates.know(str(number))
    rates.know("0")  # which was here last, now
    rates.know("new")
    assert [rates.refusal(address, 0) for address in ("0", "1")] == [None, "strangers"]
