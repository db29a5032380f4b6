from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.frame_counts import DROPS, Ledger

ACTIONS = st.lists(st.sampled_from(["capture", "detect", "drop", "miss"]), max_size=200)


@given(ACTIONS)
def test_every_frame_has_one_outcome(actions):
    told = []
    ledger = Ledger(lambda stage, reason, count: told.append(count))
    flying = 0
    for action in actions:
        if action == "capture":
            ledger.capture()
            flying += 1
        elif action == "miss":
            ledger.miss("overwritten", 2)
        elif flying:
            flying -= 1
            ledger.detect() if action == "detect" else ledger.drop("network", "connection_lost")
    assert ledger.in_flight == flying
    assert ledger.captured == ledger.detected + ledger.dropped_total + flying
    assert sum(told) == ledger.dropped_total


def test_only_known_reasons_are_counted():
    ledger = Ledger()
    ledger.capture()
    with pytest.raises(AssertionError):
        ledger.drop("grab", "bad luck")
    assert len(set(DROPS)) == len(DROPS)
