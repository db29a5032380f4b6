"""What is published, and what is not even made."""

from __future__ import annotations

from types import SimpleNamespace

from services.detector import publisher
from services.detector.publisher import Publisher
from stream.transport.broadcast import Broadcast


class Message:
    """One that counts how often its text is made."""

    stream = "door"

    def __init__(self):
        self.made = 0

    def text(self):
        self.made += 1
        return "{}"


async def test_texts_that_nobody_reads_are_not_made(monkeypatch):
    def refuse(_stream):
        raise AssertionError("nobody reads it")

    broadcast, message = Broadcast(), Message()
    monkeypatch.setattr(publisher, "stream_text", refuse)
    Publisher(broadcast).publish_detections(message)
    Publisher(broadcast).publish_stream(SimpleNamespace(name="door"))
    assert message.made == 0


async def test_one_text_is_made_for_all_who_read_it():
    broadcast, message = Broadcast(), Message()
    with broadcast.subscribe("door".__eq__) as first, broadcast.subscribe() as second:
        Publisher(broadcast).publish_detections(message)
        broadcast.close()
        assert [text async for text, _ in first] == [text async for text, _ in second] == ["{}"]
    assert message.made == 1
