"""The account of a replay: every packet settled once, in order."""

from __future__ import annotations

import hashlib

import pytest

from services.recording.player import KeyframePlace, PlayedPacket
from services.replay.ledger import DetectionsDigest, Ledger

CHAINS = [KeyframePlace(0, 100, 0, 0), KeyframePlace(0, 900, 3, 3)]


def packet(number: int, chain: int = 0) -> PlayedPacket:
    keyframe = CHAINS[chain].number == number
    return PlayedPacket(number, b"", keyframe, 1000 + number, None, CHAINS[chain])  # type: ignore[arg-type]


def person(x: float = 1.5) -> dict:
    return {"class_id": 0, "class": "person", "confidence": 0.9, "x": x, "y": 2, "width": 3, "height": 4}


def balances(ledger: Ledger) -> bool:
    return ledger.packets == ledger.detected + ledger.rejected.total() + ledger.pending


@pytest.fixture
def ledger() -> Ledger:
    """Of three packets that went out."""
    ledger = Ledger(watched=True)
    for number in range(3):
        ledger.send(packet(number))
    return ledger


def test_a_packet_is_detected_once_its_detections_have_come(ledger):
    ledger.acknowledge(packet(0), 5)
    assert ledger.detected == 0
    ledger.see(1001, [person()])
    assert (ledger.detected, ledger.pending) == (0, 3)  # in order
    ledger.see(1000, [])
    ledger.see(1000, [person()])  # once more: it was sent again
    ledger.see(7, [person()])  # another's
    assert (ledger.detected, ledger.pending, ledger.objects) == (2, 1, 1)
    assert ledger.oldest == CHAINS[0]
    assert balances(ledger)


def test_nobody_watching_answers_count():
    ledger = Ledger(watched=False)
    ledger.send(packet(0))
    ledger.acknowledge(packet(0), 5)
    assert (ledger.detected, ledger.objects, ledger.oldest) == (1, 5, None)


def test_a_packet_that_is_sent_again_is_no_new_one(ledger):
    for number in range(3):
        ledger.send(packet(number))
    assert (ledger.packets, ledger.sent, ledger.pending) == (3, 6, 3)


def test_a_rejected_packet_comes_again_once(ledger):
    ledger.see(1000, [])
    assert ledger.reject(packet(1), "corrupt", final=False)
    assert ledger.reject(packet(2), "missing_reference", final=False)
    assert not ledger.reject(packet(1), "corrupt", final=False)
    assert not ledger.reject(packet(2), "missing_reference", final=False)
    assert ledger.rejected == {"corrupt": 1, "missing_reference": 1}
    assert ledger.is_hopeless(packet(2))
    assert not ledger.is_hopeless(packet(3, 1))
    ledger.send(packet(3, 1))
    ledger.see(1003, [])
    assert (ledger.detected, ledger.pending) == (2, 0)
    assert balances(ledger)


def test_what_hangs_on_a_packet_that_is_given_up_is_given_up_too(ledger):
    ledger.reject(packet(1), "corrupt", final=False)
    ledger.reject(packet(1), "corrupt", final=False)
    assert not ledger.reject(packet(2), "missing_reference", final=False)
    ledger.see(1000, [])
    assert (ledger.pending, ledger.rejected.total()) == (0, 2)


def test_a_failure_of_the_detector_is_final_and_breaks_no_chain(ledger):
    assert not ledger.reject(packet(0), "error", final=True)
    assert ledger.rejected == {"error": 1}
    assert not ledger.is_hopeless(packet(1))


def test_a_packet_that_is_not_sent_is_counted(ledger):
    ledger.give_up(packet(3, 1), "too_large")
    for captured_ns in (1000, 1001, 1002):
        ledger.see(captured_ns, [])
    assert ledger.rejected == {"too_large": 1}
    assert balances(ledger)


def test_the_digest_is_that_of_its_definition(ledger):
    ledger.see(1000, [person()])
    ledger.reject(packet(1), "error", final=True)
    ledger.see(1002, [])
    lines = '[0,[[0,"person",0.9,1.5,2,3,4]]]\n[2,[]]\n'
    assert ledger.digest.text == hashlib.sha256(lines.encode()).hexdigest()


def test_the_digest_tells_any_difference():
    texts = set()
    for number, predictions in [(0, []), (1, []), (0, [person()]), (0, [person(1.6)]), (0, [person()] * 2)]:
        digest = DetectionsDigest()
        digest.add(number, predictions)
        texts.add(digest.text)
    assert len(texts) == 5
