"""What the broker keeps: of whom, for how long, and who is right where two publishers say different things."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.detector.stream_status import GONE as GONE_STATES
from services.detector.stream_status import STREAM_STATES
from services.mqtt import homeassistant
from services.mqtt.retained import FORGOTTEN_KEPT, GONE_KEPT, Retained
from services.mqtt.topics import Topics
from tests.services.mqtt.publishing import compact, stream_text

TOPICS = Topics("cams", "attic")


def discover(stream: str) -> dict[str, str]:
    return {f"ha/{stream}/config": f"about {stream}"}


@pytest.fixture
def superseded() -> list[int]:
    return []


@pytest.fixture
def retained(superseded) -> Retained:
    made = Retained(TOPICS, discover, lambda: superseded.append(1))
    taken(made)
    return made


def taken(retained: Retained, *, confirm: bool = True) -> dict[str, str]:
    """Everything that is due, by topic."""
    messages = []
    while message := retained.take():
        messages.append(message)
        if confirm:
            retained.confirm(message)
    assert len(messages) == len({message.topic for message in messages})
    return {message.topic: message.payload for message in messages}


def claim(publisher: str, state: str) -> bytes:
    return compact(type="stream", stream="door", publisher=publisher, state=state, reason="", at=9.5).encode()


def state_in(payload: str) -> str:
    return json.loads(payload)["state"]


def test_states_are_those_of_a_detector():
    assert homeassistant.STATES == STREAM_STATES
    assert set(homeassistant.GONE) == GONE_STATES


def test_it_is_online_from_the_start():
    assert taken(Retained(TOPICS, discover, lambda: None)) == {"cams/attic/available": "online"}


def test_a_state_is_told_with_its_publisher_and_made_known_once(retained):
    retained.update_state("door", stream_text("door", "waiting"))
    first = taken(retained)
    assert list(first) == ["ha/door/config", "cams/door/state"]
    assert json.loads(first["cams/door/state"]) == json.loads(stream_text("door", "waiting")) | {
        "publisher": "attic"
    }
    retained.update_state("door", stream_text("door", "connected"))
    assert list(taken(retained)) == ["cams/door/state"]


def test_of_a_topic_the_newest_counts_and_a_state_that_nobody_was_told_is_counted(retained, superseded):
    retained.update_state("door", stream_text("door", "waiting"))
    retained.update_state("door", stream_text("door", "connected"))
    assert len(superseded) == 1
    assert state_in(taken(retained)["cams/door/state"]) == "connected"
    retained.renew()
    retained.update_state("door", stream_text("door", "stalled"))
    assert len(superseded) == 1  # the one before it was told


def test_a_broker_without_a_memory_gets_everything_again(retained):
    retained.update_state("door", stream_text("door", "connected"))
    retained.update_counts("door", "counts")
    taken(retained)
    assert not retained.take()
    retained.renew()
    assert set(taken(retained)) == {
        "cams/attic/available",
        "ha/door/config",
        "cams/door/state",
        "cams/door/counts",
    }


def test_what_did_not_arrive_is_due_again(retained):
    retained.update_state("door", stream_text("door", "connected"))
    message = retained.take()
    retained.give_back(message)
    assert message.topic in taken(retained)


def test_streams_that_are_gone_are_forgotten_the_oldest_first(retained):
    names = [f"cam{number}" for number in range(GONE_KEPT + 2)]
    for name in names:
        retained.update_state(name, stream_text(name, "connected"))
        retained.update_counts(name, "counts")
    taken(retained)
    for name in names:
        retained.update_state(name, stream_text(name, "lost"))
    due = taken(retained)
    for name in names[:2]:
        emptied = [topic for topic in due if name in topic.replace("/", " ").split()]
        assert [due[topic] for topic in emptied] == ["", "", ""]
        assert emptied[0] == f"ha/{name}/config"  # the entity goes before what it shows
    assert state_in(due["cams/cam2/state"]) == "lost"
    retained.renew()
    assert not any("cam0/" in topic for topic in taken(retained))  # it is kept no more


def test_what_is_to_be_taken_back_is_bounded_where_there_is_no_broker(retained):
    for number in range(FORGOTTEN_KEPT + 200):
        name = f"cam{number}"
        retained.update_state(name, stream_text(name, "connected"))
        retained.update_state(name, stream_text(name, "lost"))
    assert len(retained) <= FORGOTTEN_KEPT + 2 * GONE_KEPT + 1


def test_a_stream_that_comes_back_while_it_is_taken_back_is_kept(retained):
    for number in range(GONE_KEPT + 1):
        retained.update_state(f"cam{number}", stream_text(f"cam{number}", "lost"))
    taking = []
    while message := retained.take():
        taking.append(message)
    retained.update_state("cam0", stream_text("cam0", "connected"))
    for message in taking:  # the broker confirms what it got before
        retained.confirm(message)
    assert state_in(taken(retained)["cams/cam0/state"]) == "connected"
    retained.renew()
    assert state_in(taken(retained)["cams/cam0/state"]) == "connected"


def test_a_stream_that_comes_back_is_not_forgotten(retained):
    retained.update_state("door", stream_text("door", "connected"))
    retained.update_state("door", stream_text("door", "lost"))
    retained.update_state("door", stream_text("door", "connected"))
    for number in range(GONE_KEPT + 1):
        retained.update_state(f"cam{number}", stream_text(f"cam{number}", "ended"))
    assert state_in(taken(retained)["cams/door/state"]) == "connected"
    assert retained.is_present("door")


# --- several publishers ---


@pytest.mark.parametrize("payload", [claim("cellar", "lost"), claim("cellar", "ended"), b"", b"\xff", b"[]"])
def test_whoever_has_the_camera_says_so_again(payload, retained):
    retained.update_state("door", stream_text("door", "connected"))
    taken(retained)
    retained.hear("cams/door/state", payload, kept=False)
    assert set(taken(retained)) == {"cams/door/state", "ha/door/config"}


@pytest.mark.parametrize("payload", [claim("cellar", "connected"), claim("attic", "lost")])
def test_what_is_no_contradiction_is_left_alone(payload, retained):
    retained.update_state("door", stream_text("door", "connected"))
    taken(retained)
    retained.hear("cams/door/state", payload, kept=False)
    assert taken(retained) == {}


def test_a_camera_that_is_with_another_publisher_now_is_let_go(retained):
    retained.update_state("door", stream_text("door", "connected"))
    retained.update_state("door", stream_text("door", "lost"))
    taken(retained)
    retained.hear("cams/door/state", claim("cellar", "connected"), kept=False)
    retained.renew()
    assert set(taken(retained)) == {"cams/attic/available"}


def test_two_publishers_agree_whoever_is_late():
    """The camera has gone from one to the other, and the first one hears of it last."""
    attic = Retained(TOPICS, discover, lambda: None)
    cellar = Retained(Topics("cams", "cellar"), discover, lambda: None)
    attic.update_state("door", stream_text("door", "connected"))
    cellar.update_state("door", stream_text("door", "connected"))
    attic.update_state("door", stream_text("door", "lost"))
    kept, told = {}, 0
    for _ in range(10):
        for publisher in (cellar, attic):  # so that the wrong word is the last one, at first
            for topic, payload in taken(publisher).items():
                kept[topic], told = payload, told + 1
                for other in (attic, cellar):
                    other.hear(topic, payload.encode(), kept=False)
    assert json.loads(kept["cams/door/state"])["publisher"] == "cellar"
    assert state_in(kept["cams/door/state"]) == "connected"
    assert told < 12  # and then there is silence


def test_streams_of_an_earlier_life_are_lost_until_their_camera_is_back(retained):
    retained.hear("cams/door/state", claim("attic", "connected"), kept=True)
    retained.hear("cams/yard/state", claim("attic", "ended"), kept=True)
    due = taken(retained)
    message = json.loads(due["cams/door/state"])
    assert (message["state"], message["publisher"], message["at"]) == ("lost", "attic", 9.5)
    assert "started anew" in message["reason"]
    assert state_in(due["cams/yard/state"]) == "ended"
    retained.update_state("door", stream_text("door", "connected"))
    assert state_in(taken(retained)["cams/door/state"]) == "connected"


def test_leftovers_of_earlier_lives_are_taken_back_beyond_those_that_are_kept(retained):
    for number in range(GONE_KEPT + 3):
        retained.hear(f"cams/cam{number}/state", claim("attic", "lost"), kept=True)
    due = taken(retained)
    assert [topic for topic, payload in due.items() if topic.startswith("cams/") and not payload] == [
        f"cams/cam{number}/state" for number in range(GONE_KEPT, GONE_KEPT + 3)
    ]


def test_its_own_echo_is_no_earlier_life(retained):
    retained.hear("cams/door/state", claim("attic", "connected"), kept=False)
    assert taken(retained) == {}


def test_a_will_that_comes_late_is_put_right(retained):
    retained.hear("cams/attic/available", b"online", kept=False)
    assert taken(retained) == {}
    retained.hear("cams/attic/available", b"offline", kept=False)
    assert taken(retained) == {"cams/attic/available": "online"}
    retained.say_goodbye()
    assert taken(retained) == {"cams/attic/available": "offline"}
    retained.hear("cams/attic/available", b"offline", kept=False)
    assert taken(retained) == {}


TOPIC_NAMES = [
    "cams/door/state",
    "cams/../state",
    "cams/a b/state",
    "cams/door/counts",
    "cams/attic/available",
]
CLAIMS = st.dictionaries(
    st.sampled_from(["publisher", "state", "stream", "reason", "at"]),
    st.one_of(st.none(), st.integers(), st.text(), st.sampled_from(["attic", "cellar", "lost", "connected"])),
).map(lambda message: json.dumps(message).encode())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(TOPIC_NAMES) | st.text(),
            st.binary(max_size=64) | CLAIMS | st.just(b"[" * 100_000),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_whatever_strangers_say_is_survived(messages):
    retained = Retained(TOPICS, discover, lambda: None)
    retained.update_state("yard", stream_text("yard", "connected"))
    for topic, payload, kept in messages:
        retained.hear(topic, payload, kept=kept)
    for topic in taken(retained):
        assert topic in ("cams/attic/available", "ha/yard/config") or TOPICS.stream_and_leaf(topic)
    assert retained.is_present("yard")
    assert not retained.is_present("door")
