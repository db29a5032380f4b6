from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.frame_counts import DROPS, FrameCounts

ACTIONS = st.lists(st.sampled_from(["capture", "detect", "drop", "miss"]), max_size=200)


@given(ACTIONS)
def test_every_frame_has_one_outcome(actions):
    told = []
    counts = FrameCounts(lambda stage, reason, count: told.append(count))
    flying = 0
    for action in actions:
        if action == "capture":
            counts.capture()
            flying += 1
        elif action == "miss":
            counts.miss("overwritten", 2)
        elif flying:
            flying -= 1
            counts.detect() if action == "detect" else counts.drop("network", "connection_lost")
    assert counts.in_flight == flying
    assert counts.captured == counts.detected + counts.dropped_total + flying
    assert sum(told) == counts.dropped_total


def test_only_known_reasons_are_counted():
    counts = FrameCounts()
    counts.capture()
    with pytest.raises(AssertionError):
        counts.drop("grab", "bad luck")
    assert len(set(DROPS)) == len(DROPS)
