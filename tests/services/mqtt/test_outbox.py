"""The queue to the broker: what goes first, what is dropped, and that every message is accounted for."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mqtt import outbox as outbox_module
from services.mqtt.outbox import Outbox
from services.mqtt.retained import GONE_KEPT
from services.mqtt.topics import Outgoing, Topics
from tests.services.mqtt.publishing import detections_text, gap_text, stream_text

TOPICS = Topics("cams", "attic")


class Counted:
    """An outbox, and what it has dropped."""

    def __init__(self, capacity: int) -> None:
        self.drops: Counter[tuple[str, str]] = Counter()
        self.outbox = Outbox(
            TOPICS, capacity, lambda stream: {}, lambda kind, reason: self.drops.update([(kind, reason)])
        )

    def detect(self, frame: int, stream: str = "door") -> None:
        self.outbox.put(stream, "detections", detections_text(stream, frame))

    async def rest(self, *kinds: str) -> list[Outgoing]:
        """What is left, without the publisher's own state."""
        self.outbox.close()
        messages = []
        while message := await self.outbox.next():
            messages.append(message)
        wanted = kinds or ("detections", "gap", "state", "counts")
        return [message for message in messages if message.kind in wanted]


def frames(messages: list[Outgoing]) -> list[int]:
    return [json.loads(message.payload)["frame"] for message in messages]


@pytest.fixture
def counted() -> Counted:
    made = Counted(4)
    made.outbox.put("door", "stream", stream_text("door", "connected"))
    return made


async def test_what_is_kept_goes_first_then_gaps_then_detections(counted):
    counted.detect(0)
    counted.outbox.put("door", "gap", gap_text("door", 1))
    kinds = [message.kind for message in await counted.rest()]
    assert kinds == ["state", "counts", "gap", "detections"]


async def test_texts_go_out_as_they_came(counted):
    counted.detect(3)
    [message] = await counted.rest("detections")
    assert (message.topic, message.payload) == ("cams/door/detections", detections_text("door", 3))
    assert message.delivery == (0, False)


@pytest.mark.parametrize(("connected", "reason"), [(True, "slow"), (False, "disconnected")])
async def test_a_full_queue_drops_the_oldest_detections_and_says_how_many(connected, reason, counted):
    counted.outbox.connected = connected
    for frame in range(7):
        counted.detect(frame)
    assert counted.drops == {("detections", reason): 3}
    messages = await counted.rest("detections")
    assert frames(messages) == [3, 4, 5, 6]
    assert [json.loads(message.payload).get("dropped") for message in messages] == [3, None, None, None]


async def test_each_stream_is_told_of_its_own(counted):
    counted.outbox.put("yard", "stream", stream_text("yard", "connected"))
    counted.detect(0, "yard")
    for frame in range(5):
        counted.detect(frame)
    counted.detect(1, "yard")
    told = {
        message.stream: json.loads(message.payload).get("dropped")
        for message in (await counted.rest("detections"))[::-1]
    }
    assert told == {"door": 2, "yard": 1}


async def test_gaps_go_only_where_nothing_else_is_left(counted):
    for first in range(3):
        counted.outbox.put("door", "gap", gap_text("door", first))
    for frame in range(3):
        counted.detect(frame)
    assert counted.drops == {("detections", "disconnected"): 2}
    for first in range(3, 6):
        counted.outbox.put("door", "gap", gap_text("door", first))
    assert counted.drops == {("detections", "disconnected"): 3, ("gap", "disconnected"): 2}


async def test_the_queue_is_bounded_in_bytes_too(monkeypatch):
    monkeypatch.setattr(outbox_module, "MAX_BYTES", 3 * len(detections_text("door", 0)))
    counted = Counted(100)
    for frame in range(5):
        counted.detect(frame)
    assert counted.drops == {("detections", "disconnected"): 2}
    assert frames(await counted.rest("detections")) == [2, 3, 4]


async def test_what_is_given_back_counts_for_the_room_again(monkeypatch):
    monkeypatch.setattr(outbox_module, "MAX_BYTES", 2 * len(gap_text("door", 0)))
    counted = Counted(100)
    for first in range(2):
        counted.outbox.put("door", "gap", gap_text("door", first))
    await counted.outbox.next()  # that the publisher is online
    counted.outbox.give_back(await counted.outbox.next())
    assert not counted.drops
    counted.outbox.put("door", "gap", gap_text("door", 2))
    assert counted.drops == {("gap", "disconnected"): 1}


async def test_what_is_refused_is_over_and_told_to_who_would_have_got_it(counted):
    counted.outbox.put("door", "gap", gap_text("door", 1))
    counted.outbox.put("door", "gap", gap_text("door", 2))
    while (message := await counted.outbox.next()).kind != "gap":
        counted.outbox.refuse(message)
    counted.outbox.refuse(message)
    assert counted.drops == {("available", "refused"): 1, ("state", "refused"): 1, ("gap", "refused"): 1}
    assert len(counted.outbox) == counted.outbox.waiting == 1
    [left] = await counted.rest("gap")
    assert json.loads(left.payload)["dropped"] == 1


async def test_what_the_broker_would_not_take_back_is_offered_again(counted):
    for number in range(GONE_KEPT + 1):
        counted.outbox.put(f"cam{number}", "stream", stream_text(f"cam{number}", "ended"))
    emptied = set()
    while counted.outbox.waiting:
        message = await counted.outbox.next()
        if message.payload:
            counted.outbox.confirm(message)
        else:
            counted.outbox.refuse(message)
            emptied.add(message.topic)
    assert emptied
    counted.outbox.retained.renew()
    offered = {message.topic for message in iter(counted.outbox.retained.take, None) if not message.payload}
    assert offered == emptied


async def test_of_a_stream_that_is_not_there_nothing_is_remembered(counted):
    for frame in range(5):
        counted.detect(frame, "yard")
    counted.outbox.put("yard", "stream", stream_text("yard", "connected"))
    told = [json.loads(message.payload) for message in await counted.rest("detections")]
    assert counted.drops == {("detections", "disconnected"): 1}
    assert not any("dropped" in message for message in told)


async def test_what_may_be_told_twice_is_sent_again(counted):
    counted.outbox.put("door", "gap", gap_text("door", 1))
    counted.outbox.put("door", "gap", gap_text("door", 2))
    counted.detect(0)
    messages = [message for message in await counted.rest() if message.kind != "counts"]
    for message in messages[::-1]:
        counted.outbox.give_back(message)
    assert counted.drops == {("detections", "broken"): 1}
    again = await counted.rest()
    assert [message.topic for message in again] == [message.topic for message in messages[:-1]]
    assert [json.loads(message.payload).get("first") for message in again] == [None, 1, 2]
    assert json.loads(again[1].payload)["dropped"] == 1


async def test_a_stop_counts_what_is_left(counted):
    counted.detect(0)
    counted.outbox.put("door", "gap", gap_text("door", 1))
    counted.outbox.abandon()
    assert counted.drops == {("detections", "shutdown"): 1, ("gap", "shutdown"): 1}
    assert await counted.rest("detections", "gap") == []


async def test_a_message_wakes_who_waits(counted):
    while counted.outbox.waiting:
        await counted.outbox.next()
    waiting = asyncio.ensure_future(counted.outbox.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    counted.outbox.put("door", "gap", gap_text("door", 1))
    assert (await waiting).kind == "gap"


async def test_counts_follow_the_frames_and_end_with_the_stream(counted):
    def put(frame: int, *classes: str) -> None:
        counted.outbox.put("door", "detections", detections_text("door", frame, classes))

    async def shown() -> list[tuple[int | None, int | None]]:
        messages = []
        while counted.outbox.waiting:
            messages.append(await counted.outbox.next())
        counts = [json.loads(message.payload) for message in messages if message.kind == "counts"]
        return [(message["person"], message["vehicle"]) for message in counts]

    put(0, "person", "car")
    assert await shown() == [(1, 1)]
    put(1, "person")
    assert await shown() == []
    counted.outbox.end_second(1.0)
    put(2, "person")
    counted.outbox.end_second(2.0)
    assert await shown() == [(1, 0)]
    counted.outbox.put("door", "stream", stream_text("door", "lost"))
    assert await shown() == [(None, None)]
    put(3, "person")  # of a stream that is gone, as it may be late
    counted.outbox.end_second(3.0)
    assert await shown() == []


ACTIONS = st.lists(
    st.sampled_from(["detections", "gap", "take", "broken", "connect", "disconnect"]), max_size=60
)


@given(ACTIONS, st.integers(1, 5))
async def test_every_message_is_accounted_for(actions, capacity):
    counted = Counted(capacity)
    counted.outbox.put("door", "stream", stream_text("door", "connected"))
    put: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    for number, action in enumerate(actions):
        match action:
            case "detections":
                counted.detect(number)
                put["detections"] += 1
            case "gap":
                counted.outbox.put("door", "gap", gap_text("door", number))
                put["gap"] += 1
            case "connect" | "disconnect":
                counted.outbox.connected = action == "connect"
            case _ if counted.outbox.waiting:
                message = await counted.outbox.next()
                if action == "broken":
                    counted.outbox.give_back(message)
                else:
                    counted.outbox.confirm(message)
                    sent[message.kind] += 1
        assert len(counted.outbox) == counted.outbox.waiting
    left = Counter(message.kind for message in await counted.rest("detections", "gap"))
    assert sum(left.values()) <= capacity
    for kind in ("detections", "gap"):
        dropped = sum(count for (of, _), count in counted.drops.items() if of == kind)
        assert put[kind] == sent[kind] + dropped + left[kind]
