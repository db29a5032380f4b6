from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.frame_counts import DROPS, FrameCounts

ACTIONS = st.lists(
    st.sampled_from(["capture", "detect", "detect_locally", "record", "drop", "miss"]), max_size=200
)


@given(ACTIONS)
def test_every_frame_has_one_outcome(actions):
    told, recorded = [], []
    counts = FrameCounts(lambda stage, reason, count: told.append(count), lambda: recorded.append(1))
    flying = 0
    for action in actions:
        if action == "capture":
            counts.capture()
            flying += 1
        elif action == "miss":
            counts.miss("overwritten", 2)
        elif flying:
            flying -= 1
            if action == "drop":
                counts.drop("network", "connection_lost")
            else:
                getattr(counts, action)()
    kept = counts.detected + counts.detected_locally + counts.recorded
    assert counts.in_flight == flying
    assert counts.captured == kept + counts.dropped_total + flying == counts.done + flying
    assert sum(told) == counts.dropped_total
    assert len(recorded) == counts.recorded


def test_the_account_names_what_only_some_cameras_do_where_it_was_done():
    counts = FrameCounts()
    for _ in range(6):
        counts.capture()
    counts.detect()
    counts.drop("grab", "stale", 2)
    assert counts.account == {"captured": 6, "detected": 1, "dropped": 2}
    counts.detect_locally()
    counts.record()
    counts.record()
    assert counts.account == {
        "captured": 6,
        "detected": 1,
        "detected_locally": 1,
        "recorded": 2,
        "dropped": 2,
    }


def test_only_known_reasons_are_counted():
    counts = FrameCounts()
    counts.capture()
    with pytest.raises(AssertionError):
        counts.drop("grab", "bad luck")
    assert len(set(DROPS)) == len(DROPS)
