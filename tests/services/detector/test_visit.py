"""How long a camera may be silent, to the second: no clock, no socket."""

from __future__ import annotations

import pytest

from services.access.tokens import EVERYBODY
from services.detector.names import Names
from services.detector.publisher import Publisher
from services.detector.statistics import DetectorStatistics
from services.detector.streams import Streams
from services.detector.visit import Visit
from stream.errors import SessionError
from stream.session.close_codes import CloseCode
from stream.session.messages import Waiting
from stream.transport.broadcast import Broadcast
from tests.stream.session.peers import LAYOUT, make_hello

SECRET = "5e" * 16


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def make_visit(streams):
    names, statistics = Names(2, 180), DetectorStatistics(streams)
    return lambda: Visit(names, streams, Publisher(Broadcast()), statistics, EVERYBODY)


@pytest.mark.parametrize("waits", [True, False])
def test_a_camera_is_stalled_after_five_seconds_and_left_after_ten(streams, make_visit, waits):
    visit = make_visit()
    if waits:
        visit.wait(Waiting(stream="door", session=SECRET, source="0", source_state="opening"))
    else:
        visit.greet(make_hello(session=SECRET), LAYOUT)
    before, seen = streams.get("door").status.state, []
    for silence_s in (0.0, 4.9, 5.0, 9.9, 0.0, 5.0):
        visit.hear(silence_s)
        seen.append(streams.get("door").status.state)
    assert seen == [before, before, "stalled", "stalled", before, "stalled"]
    with pytest.raises(SessionError, match="nothing came for 10 s") as left:
        visit.hear(10.0)
    assert left.value.code is CloseCode.TIMEOUT


def test_who_has_not_said_a_name_is_left_too(streams, make_visit):
    visit = make_visit()
    visit.hear(9.9)
    with pytest.raises(SessionError):
        visit.hear(10.0)
    assert len(list(streams)) == 0


def test_the_silence_of_a_replaced_connection_says_nothing_of_the_stream(streams, make_visit):
    old, new = make_visit(), make_visit()
    old.greet(make_hello(session=SECRET), LAYOUT)
    new.greet(make_hello(session=SECRET), LAYOUT)
    old.hear(9.0)
    old.leave("replaced", "closed", reserve=True)
    status = streams.get("door").status
    assert (status.state, status.connection) == ("connected", 2)
