from __future__ import annotations

from stream.sources.capture_child import FreeSlots
from stream.sources.capture_messages import SLOTS, Release


def test_a_slot_of_former_memory_comes_not_free_in_the_new():
    slots = FreeSlots()
    assert slots.take() is None
    for _ in range(2):
        slots.renew()
        assert sorted(slots.take() for _ in range(SLOTS)) == list(range(SLOTS))
        assert slots.take() is None
    slots.give_back(Release(memory=1, slot=0))
    assert slots.take() is None
    slots.give_back(Release(memory=2, slot=3))
    assert slots.take() == 3
