"""Acks: as short as can be, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.errors import InvalidMessage
from stream.latency import DETECTOR_STAGES
from stream.session.ack import Ack

STAGES_NS = {"queue": 12_300, "decode": 1_234_567, "tail": 34_000_499, "nms": 80_000, "publish": 1_500_000}
ACK = Ack(65536 * 3 + 258, 2, STAGES_NS).pack()


def test_says_what_is_written_in_the_protocol():
    """Kind, number modulo 65536, detections, and five durations in microseconds."""
    assert bytes.fromhex("01 0102 02 0c 8953 8289 50 50 8b5c") == ACK


def test_comes_back_in_microseconds():
    ack = Ack.parse(ACK)
    assert (ack.sequence, ack.detections) == (258, 2)
    assert ack.stages_ns == {stage: round(STAGES_NS[stage], -3) for stage in DETECTOR_STAGES}


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 2**50), st.lists(st.integers(0, 2**62), min_size=5, max_size=5)
)
@example(0, 0, [3_925_519_208_753_028_501] * 5)  # of which a float would lose the last µs
def test_every_ack_answers_its_packet_and_no_other_of_a_window(sequence, detections, durations):
    ack = Ack.parse(Ack(sequence, detections, dict(zip(DETECTOR_STAGES, durations, strict=True))).pack())
    assert ack.detections == detections
    assert all(
        abs(ack.stages_ns[stage] - ns) <= 500 for stage, ns in zip(DETECTOR_STAGES, durations, strict=True)
    )
    assert ack.answers(sequence)
    assert not any(ack.answers((sequence + ahead) % 2**32) for ahead in (-1024, -1, 1, 1024, 2**15))


@pytest.mark.parametrize("size", range(len(ACK)))
def test_refuses_truncation(size):
    with pytest.raises(InvalidMessage):
        Ack.parse(ACK[:size])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x02" + ACK[1:], "no ack"),
        (ACK + b"\0", "1 bytes follow"),
        (ACK[:3] + b"\x80" + ACK[3:], "begins with zeros"),
        (ACK[:3] + b"\xff" * 20, "64 bits"),
        (ACK[:3] + b"\x90" + b"\x80" * 6 + b"\0" + ACK[4:], "a number is 9007199254740992"),
    ],
)
def test_refuses_what_is_no_ack(data, message):
    with pytest.raises(InvalidMessage, match=message):
        Ack.parse(data)


@given(st.binary(max_size=40))
def test_noise_is_refused_or_an_ack(noise):
    try:
        ack = Ack.parse(b"\x01" + noise)
    except InvalidMessage:
        return
    assert ack.pack() == b"\x01" + noise
