"""Messages found and changed in the bytes of a WebSocket connection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import Stamp, TensorSpec, parse_codec
from services.chaos import websocket
from services.chaos.delay_line import Part
from services.chaos.faults import parse_fault
from services.chaos.switches import Switches
from services.chaos.websocket import MOST_HEAD_BYTES, MessageEditor, Upgrade
from tests.services.chaos.frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame, read_frames

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
MASK = b"\x01\x80\xff\x37"
MASKS = st.sampled_from([b"", MASK])


def editor(*faults: str, upgrade: Upgrade | None = None, direction: str = "up") -> MessageEditor:
    switches = Switches(0)
    for text in faults:
        switches.add(parse_fault(text), text).turn(True, 0.0)
    return MessageEditor(direction, 1, upgrade or Upgrade(True), switches, lambda: 0.5)


def sent(parts: list[Part]) -> bytes:
    return b"".join(part.data for part in parts)


def received(faults: str | tuple[str, ...], *frames: bytes) -> list[tuple[int, bytes]]:
    """(opcode, payload) of what comes out of these frames."""
    faults = (faults,) if isinstance(faults, str) else faults
    return read_frames(sent(editor(*faults).receive(b"".join(frames))))


# --- what passes as it is ---


@given(
    payloads=st.lists(st.tuples(st.sampled_from([TEXT, BINARY, PING]), st.binary(max_size=300), MASKS)),
    cuts=st.lists(st.integers(0, 3000)),
)
def test_without_a_fault_every_byte_passes_however_it_is_cut(payloads, cuts):
    data = b"".join(frame(*each) for each in payloads)
    one, parts, start = editor(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        parts += one.receive(data[start:cut])
        start = max(start, cut)
    assert sent(parts) == data
    assert one.rest().data == b""


@pytest.mark.parametrize("size", [0, 125, 126, 127, 65535, 65536, 100_000])
@pytest.mark.parametrize("mask", [b"", MASK])
def test_all_lengths(size, mask):
    payload = bytes(range(256)) * (size // 256 + 1)
    assert received("duplicate", frame(BINARY, payload[:size], mask)) == [(BINARY, payload[:size])] * 2


def test_the_handshake_passes_and_messages_are_seen_after_it():
    upgrade = Upgrade()
    up, down = (editor("lose", upgrade=upgrade, direction=direction) for direction in ("up", "down"))
    request = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
    assert sent(up.receive(request)) == request
    assert down.receive(ANSWER[:30]) == []
    assert sent(down.receive(ANSWER[30:] + frame(TEXT, b"lost") + frame(PING, b"p"))) == ANSWER + frame(
        PING, b"p"
    )
    assert sent(up.receive(frame(TEXT, b"lost", MASK))) == b""


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", bytes(MOST_HEAD_BYTES + 1)])
def test_what_is_no_websocket_passes(answer):
    upgrade = Upgrade()
    up, down = (editor("lose", upgrade=upgrade, direction=direction) for direction in ("up", "down"))
    text = frame(TEXT, b"not lost")
    assert sent(down.receive(answer + text)) == answer + text
    assert sent(up.receive(text)) == text


def test_what_is_cut_off_passes_at_the_end():
    one = editor("lose")
    begun = frame(TEXT, b"begun", final=False)
    assert one.receive(begun + b"\x82") == []
    assert one.rest().data == begun + b"\x82"


def test_a_message_that_is_too_large_is_refused_before_it_is_here(monkeypatch):
    monkeypatch.setattr(websocket, "MOST_MESSAGE_BYTES", 1000)
    with pytest.raises(ConnectionAbortedError):
        editor().receive(frame(BINARY, bytes(1001))[:20])
    part = frame(CONTINUATION, bytes(600), final=False)
    with pytest.raises(ConnectionAbortedError):
        editor().receive(frame(BINARY, b"", final=False) + part + part)


# --- what faults do ---


@pytest.mark.parametrize("mask", [b"", MASK])
def test_truncated(mask):
    assert received("truncate:keep=.5", frame(TEXT, b"12345678", mask)) == [(TEXT, b"1234")]


@pytest.mark.parametrize("mask", [b"", MASK])
@pytest.mark.parametrize("bits", [1, 3])
def test_flipped(mask, bits):
    payload = bytes(1000)
    ((_, damaged),) = received(f"flip:bits={bits}", frame(BINARY, payload, mask))
    assert sum(byte.bit_count() for byte in damaged) == bits


def test_an_empty_message_has_no_bits():
    assert received("flip", frame(TEXT, b"")) == [(TEXT, b"")]


def test_oversize():
    ((_, payload),) = received("oversize:mib=1", frame(TEXT, b"{}", MASK))
    assert payload == b"{}" + b" " * (2**20 - 2)
    assert received("oversize:mib=.000001", frame(TEXT, b"{}")) == [(TEXT, b"{}")]


def test_lost_and_duplicated():
    frames = [frame(TEXT, str(number).encode()) for number in range(1, 5)]
    assert received(("lose:at=2,count=1", "duplicate:at=3,count=1"), *frames) == [
        (TEXT, b"1"),
        (TEXT, b"3"),
        (TEXT, b"3"),
        (TEXT, b"4"),
    ]


def test_delay_keeps_the_order_and_reorder_does_not():
    (late,) = editor("delay:ms=200").receive(frame(TEXT, b"x"))
    (held,) = editor("reorder:ms=300").receive(frame(TEXT, b"x"))
    assert (late.delay_s, late.in_order) == (0.2, True)
    assert (held.delay_s, held.in_order) == (0.3, False)


def test_jitter_has_bounds():
    one = editor("delay:ms=100,jitter=150")
    delays_s = [one.receive(frame(TEXT, b""))[0].delay_s for _ in range(100)]
    assert min(delays_s) == 0
    assert 0.2 < max(delays_s) <= 0.25


def test_a_message_in_several_frames_is_one_message():
    frames = [
        frame(TEXT, b"ab", MASK, final=False),
        frame(PING, b"between", MASK),
        frame(CONTINUATION, b"cd", MASK, final=False),
        frame(CONTINUATION, b"ef", b"\1\2\3\4"),
    ]
    assert received("truncate:keep=.5", *frames) == [(PING, b"between"), (TEXT, b"abc")]
    untouched = sent(editor().receive(b"".join(frames)))
    assert untouched == frames[1] + frames[0] + frames[2] + frames[3]


def test_pings_and_closes_are_no_messages():
    frames = [frame(PING, b"p"), frame(CLOSE, b"\x03\xe8")]
    assert received("lose", *frames) == [(PING, b"p"), (CLOSE, b"\x03\xe8")]


def test_keyframes_are_told_from_other_packets():
    layout = (TensorSpec("a", (2, 8, 8)),)
    encoder = parse_codec("feature:quality=6,profile=none").encoder(layout)
    tensors = {"a": np.zeros((2, 8, 8), np.float32)}
    packets = [encoder.encode(tensors, Stamp(number, 0)).data for number in range(3)]
    frames = [frame(BINARY, packet, MASK) for packet in packets]
    assert received("lose:kind=keyframe", *frames) == [(BINARY, packet) for packet in packets[1:]]
    assert received("lose:kind=binary", *frames) == []
    assert received("lose:kind=keyframe", frame(BINARY, b"SPLC"), frame(TEXT, packets[0])) != []


def test_what_was_done_is_on_record():
    switches = Switches(0)
    lose = switches.add(parse_fault("lose:at=2"), "lose:at=2")
    lose.turn(True, 0.0)
    one = MessageEditor("down", 7, Upgrade(True), switches, lambda: 1.25)
    parts = one.receive(frame(TEXT, b"passes") + frame(BINARY, b"lost"))
    assert [part.kind for part in parts] == ["text"]
    assert lose.record.events == [
        {"at_s": 1.25, "connection": 7, "direction": "down", "message": 2, "kind": "binary", "bytes": 4}
    ]
