"""What a fault chooses, and that it chooses the same again."""

from __future__ import annotations

import pytest

from services.chaos.faults import BlackHole, Latency, Lose, parse_fault
from services.chaos.switches import Switches


def chosen(text: str, messages: int, seed: int = 0) -> list[int]:
    """Numbers, from 1, of the messages chosen out of so many."""
    switch = Switches(seed).add(parse_fault(text), text)
    switch.turn(True, 0.0)
    return [number for number in range(1, messages + 1) if switch.chooses("up", "binary")]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("lose", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("lose:at=6", [6, 7, 8]),
        ("lose:every=3", [1, 4, 7]),
        ("lose:at=2,every=3", [2, 5, 8]),
        ("lose:at=2,count=1", [2]),
        ("lose:every=2,count=2", [1, 3]),
        ("lose:kind=text", []),
        ("lose:direction=down", []),
        ("lose:probability=0", []),
    ],
)
def test_which_are_chosen(text, numbers):
    assert chosen(text, 8) == numbers


def test_chance_is_the_same_with_the_same_seed():
    first = chosen("lose:probability=.5", 200)
    assert first == chosen("lose:probability=.5", 200)
    assert first != chosen("lose:probability=.5", 200, seed=1)
    assert 60 < len(first) < 140


def test_a_fault_that_is_off_chooses_nothing_and_begins_anew():
    switch = Switches(0).add(Lose(count=1), "lose:count=1")
    assert not switch.chooses("up", "text")
    for _ in range(2):
        switch.turn(True, 1.0)
        assert [switch.chooses("up", "text") for _ in range(3)] == [True, False, False]
        switch.turn(False, 2.0)


def test_faults_that_are_on_by_class_and_direction():
    switches = Switches(0)
    up = switches.add(Latency(ms=1, direction="up"), "")
    both = switches.add(Latency(ms=2), "")
    switches.add(BlackHole(), "").turn(True, 0.0)
    assert list(switches.on(Latency, "up")) == []
    up.turn(True, 0.0)
    both.turn(True, 0.0)
    assert [fault.ms for fault, _ in switches.on(Latency, "up")] == [1, 2]
    assert [fault.ms for fault, _ in switches.on(Latency, "down")] == [2]
