from __future__ import annotations

from services.detector.profile_store import RECEIVED_KEPT, ProfileStore


class FakeProfile:
    def __init__(self, number: int) -> None:
        self.hash = f"{number:064}"


def test_forgets_the_one_not_used_for_longest():
    store = ProfileStore({})
    fakes = [FakeProfile(number) for number in range(RECEIVED_KEPT + 1)]
    for fake in fakes[:-1]:
        store.add(fake)
    assert store[fakes[0].hash] is fakes[0]
    store.add(fakes[-1])
    assert fakes[1].hash not in store
    assert len(store) == len(set(store)) == RECEIVED_KEPT
    assert all(fake.hash in store for fake in (fakes[0], *fakes[2:]))


def test_keeps_those_that_ship_and_those_given():
    bundled = FakeProfile(1000)
    given = FakeProfile(1001)
    store = ProfileStore({bundled.hash: bundled})
    store.keep(given)
    for number in range(3 * RECEIVED_KEPT):
        store.add(FakeProfile(number))
    assert store[bundled.hash] is bundled
    assert store[given.hash] is given
    assert len(store) == len(list(store)) == RECEIVED_KEPT + 2
