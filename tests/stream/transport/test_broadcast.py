from __future__ import annotations

import asyncio

from stream.transport.broadcast import Broadcast


async def take(subscription) -> list[str]:
    return [text async for text, _ in subscription]


async def test_subscribers_get_their_stream_in_order():
    broadcast = Broadcast()
    with broadcast.subscribe("a".__eq__) as a, broadcast.subscribe() as every:
        assert len(broadcast) == 2
        for number in range(3):
            broadcast.publish("a", "gap", f"a{number}")
            broadcast.publish("b", "gap", f"b{number}")
        broadcast.close()
        assert await take(a) == ["a0", "a1", "a2"]
        assert await take(every) == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert len(broadcast) == 0


async def test_a_slow_subscriber_loses_the_oldest_and_it_is_counted():
    drops = []
    broadcast = Broadcast(capacity=2, on_drop=lambda: drops.append(1))
    with broadcast.subscribe() as slow:
        for number in range(5):
            broadcast.publish("a", "gap", str(number))
        broadcast.close()
        assert [delivered async for delivered in slow] == [("3", 3), ("4", 0)]
        assert len(drops) == 3


async def test_a_subscriber_gets_the_kinds_that_it_wants():
    broadcast = Broadcast()
    with (
        broadcast.subscribe("a".__eq__, frozenset({"gap", "stream"})) as some,
        broadcast.subscribe(kinds=frozenset({"detections"})) as other,
    ):
        for kind in ("detections", "stream", "gap"):
            broadcast.publish("a", kind, kind)
        broadcast.close()
        assert await take(some) == ["stream", "gap"]
        assert await take(other) == ["detections"]


async def test_waits_for_the_next_text():
    broadcast = Broadcast()
    with broadcast.subscribe() as subscription:
        taking = asyncio.ensure_future(take(subscription))
        await asyncio.sleep(0)
        broadcast.publish("a", "gap", "1")
        await asyncio.sleep(0)
        broadcast.close()
        assert await taking == ["1"]


def test_a_text_is_wanted_where_a_subscriber_would_get_it():
    broadcast = Broadcast()
    assert not broadcast.is_wanted("a", "gap")
    with broadcast.subscribe("a".__eq__, frozenset({"gap"})):
        assert broadcast.is_wanted("a", "gap")
        assert not broadcast.is_wanted("a", "detections")
        assert not broadcast.is_wanted("b", "gap")
        with broadcast.subscribe():
            assert broadcast.is_wanted("b", "detections")


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str, str]] = []

    def put(self, stream: str, kind: str, text: str) -> None:
        self.texts.append((stream, kind, text))


async def test_a_sink_gets_every_text_at_once_and_is_no_subscriber():
    broadcast, sink = Broadcast(capacity=1), Kept()
    assert not broadcast.is_wanted("a", "gap")
    with broadcast.attach(sink):
        assert broadcast.is_wanted("a", "gap")
        assert len(broadcast) == 0
        broadcast.publish("a", "gap", "0")
        broadcast.publish("a", "stream", "for subscribers alone", to_sinks=False)
        broadcast.close()
        broadcast.publish("b", "stream", "1")
        assert sink.texts == [("a", "gap", "0"), ("b", "stream", "1")]
    broadcast.publish("a", "gap", "2")
    assert len(sink.texts) == 2
    assert not broadcast.is_wanted("a", "gap")
