from __future__ import annotations

import random

import pytest

from stream.session.frame_numbers import CONNECTION_LOST, FrameNumbers, Gap
from stream.session.messages import Report
from tests.stream.session.peers import make_hello


def report(detected: int = 0, **dropped: int) -> Report:
    """A report whose drops are named as grab__superseded."""
    return Report(
        captured=detected,
        detected=detected,
        in_flight=0,
        dropped={name.replace("__", "/"): count for name, count in dropped.items()},
        reconnects={},
        source="0",
        source_state="open",
        keyframes={},
    )


def hello(frame: int, live: bool = True, welcomes: int | None = None):
    return make_hello(frame=frame, live=live, welcomes=welcomes)


@pytest.fixture
def numbers() -> FrameNumbers:
    """Of a live camera that came with its first frame and has reported once."""
    numbers = FrameNumbers()
    assert numbers.connect(hello(0), same_camera=False) == []
    assert numbers.report(report()) == []
    return numbers


def test_packets_and_drops_are_counted_on(numbers):
    assert [numbers.packet() for _ in range(3)] == [0, 1, 2]
    assert numbers.report(report(3, grab__superseded=2, head__error=1)) == [
        Gap(3, 5, {"grab/superseded": 2, "head/error": 1})
    ]
    assert numbers.packet() == 6
    assert numbers.report(report(4, grab__superseded=2, head__error=1)) == []
    assert numbers.report(report(4, grab__superseded=3, head__error=1)) == [Gap(7, 7, {"grab/superseded": 1})]


def test_what_is_rejected_is_told_at_once_and_not_again_by_the_camera(numbers):
    number = numbers.packet()
    assert numbers.reject(number, "corrupt") == Gap(0, 0, {"detector/corrupt": 1})
    assert numbers.reject(numbers.packet(), "stale") == Gap(1, 1, {"network/stale": 1})
    assert numbers.report(report(0, detector__corrupt=1, network__stale=1)) == []
    assert numbers.next == 2


def test_what_a_lost_connection_costs_is_told_once(numbers):
    """Two packets came and stay unanswered, one never came, and four frames found no detector."""
    for number in (numbers.packet(), numbers.packet()):
        assert number in (0, 1)
    assert numbers.lose([0, 1]) == [Gap(0, 1, {CONNECTION_LOST: 2})]
    assert numbers.connect(hello(7), same_camera=True) == []
    assert numbers.packet() == 7
    gaps = numbers.report(report(0, network__connection_lost=3, grab__disconnected=4, grab__superseded=2))
    assert gaps == [
        Gap(2, 6, {CONNECTION_LOST: 1, "grab/disconnected": 4}),
        Gap(8, 9, {"grab/superseded": 2}),
    ]


def test_what_a_camera_detected_by_itself_is_told_so(numbers):
    """As what it kept; none of it is told twice, and a detector that has just come is told of one frame alone."""
    numbers.packet()
    assert numbers.lose([0]) == [Gap(0, 0, {CONNECTION_LOST: 1})]
    numbers.connect(hello(10), same_camera=True)
    kept = {"detected_locally": 5, "recorded": 2}
    told = report(0, network__connection_lost=1, grab__disconnected=2, grab__superseded=1)
    assert numbers.report(told.model_copy(update=kept)) == [
        Gap(1, 9, {"grab/disconnected": 2, "local": 5, "recorded": 2}),
        Gap(10, 10, {"grab/superseded": 1}),
    ]
    assert numbers.report(told.model_copy(update=kept)) == []
    newcomer = FrameNumbers()
    newcomer.connect(hello(10), same_camera=False)
    assert newcomer.report(told.model_copy(update=kept)) == [Gap(10, 10, {"grab/disconnected": 1})]


def test_what_only_an_outage_can_be_the_reason_of_fills_its_gap_first(numbers):
    """However many frames were dropped since for another reason."""
    numbers.connect(hello(9), same_camera=True)
    told = report(0, grab__superseded=20, head__error=10).model_copy(
        update={"detected_locally": 4, "recorded": 5}
    )
    assert numbers.report(told) == [
        Gap(0, 8, {"local": 4, "recorded": 5}),
        Gap(9, 38, {"grab/superseded": 20, "head/error": 10}),
    ]


def test_what_one_lost_connection_cost_is_not_taken_from_the_next(numbers):
    for _ in range(2):
        numbers.packet()
    assert numbers.lose([0, 1]) == [Gap(0, 1, {CONNECTION_LOST: 2})]
    numbers.connect(hello(2), same_camera=True)
    assert numbers.report(report(0, network__connection_lost=2)) == []
    numbers.connect(hello(4), same_camera=True)  # of two packets on their way none came
    assert numbers.report(report(0, network__connection_lost=4)) == [Gap(2, 3, {CONNECTION_LOST: 2})]


def test_what_the_detector_called_stale_is_no_reason_of_what_it_missed(numbers):
    numbers.reject(numbers.packet(), "stale")
    numbers.connect(hello(3), same_camera=True)
    assert numbers.report(report(0, network__stale=1, grab__superseded=1)) == [
        Gap(1, 2, {"grab/superseded": 1, "unknown": 1})
    ]


@pytest.mark.parametrize("live", [True, False])
def test_what_another_detector_was_told_is_no_gap_here(live):
    """A camera that was here, then there, and comes back: frames 2 to 99, and their drops, are told there."""
    numbers = FrameNumbers()
    numbers.connect(hello(0, live, 0), same_camera=False)
    assert [numbers.packet() for _ in range(2)] == [0, 1]
    numbers.answer()
    numbers.answer()
    assert numbers.report(report(2)) == []
    assert numbers.connect(hello(100, live, 2), same_camera=True) == []
    assert [numbers.packet() for _ in range(2)] == [100, 101]
    numbers.answer()
    numbers.answer()
    assert numbers.report(report(62, grab__superseded=41)) == [Gap(102, 102, {"grab/superseded": 1})]
    assert numbers.packet() == 103


@pytest.mark.parametrize("welcomes", [None, 3, 4])
def test_a_camera_that_nobody_else_served_is_asked_what_was_missed(welcomes):
    """Its count of welcomes lacks one where the last one got lost on its way."""
    numbers = FrameNumbers()
    numbers.connect(hello(0, welcomes=3), same_camera=False)
    numbers.report(report())
    numbers.connect(hello(5, welcomes=welcomes), same_camera=True)
    assert numbers.report(report(0, grab__disconnected=5)) == [Gap(0, 4, {"grab/disconnected": 5})]


def test_a_process_started_anew_keeps_its_numbers_apart_also_after_another_detector(numbers):
    numbers.packet()
    numbers.connect(hello(1, welcomes=1), same_camera=True)
    numbers.report(report(1))
    assert numbers.packet() == 1
    numbers.connect(hello(0, welcomes=0), same_camera=True)  # of a new process
    assert numbers.packet() == 2
    numbers.connect(hello(9, welcomes=2), same_camera=True)
    assert numbers.packet() == 11


def test_what_was_sent_and_never_came_has_no_number_before_the_next_connection(numbers):
    assert numbers.report(report(0, network__shutdown=2)) == []
    assert numbers.packet() == 0


def test_a_rejected_packet_is_none_that_the_first_report_misses():
    numbers = FrameNumbers()
    numbers.connect(hello(150), same_camera=False)
    numbers.reject(numbers.packet(), "corrupt")
    assert numbers.report(report(50, grab__superseded=103, detector__corrupt=1)) == [
        Gap(151, 153, {"grab/superseded": 3})
    ]


def test_what_nobody_told_the_reason_of_is_told_all_the_same(numbers):
    numbers.connect(hello(5), same_camera=True)
    assert numbers.connect(hello(9), same_camera=True) == [Gap(0, 4, {"unknown": 5})]
    # Five of these are told by now.
    assert numbers.report(report(0, grab__disconnected=8)) == [
        Gap(5, 8, {"grab/disconnected": 3, "unknown": 1})
    ]


def test_frames_of_a_file_that_are_sent_again_have_their_old_numbers():
    numbers = FrameNumbers()
    numbers.connect(hello(0, live=False), same_camera=False)
    assert [numbers.packet() for _ in range(3)] == [0, 1, 2]
    assert numbers.connect(hello(1, live=False), same_camera=True) == []
    assert numbers.packet() == 1


def test_another_camera_counts_anew(numbers):
    numbers.packet()
    assert numbers.connect(hello(0), same_camera=False) == []
    assert numbers.packet() == 0


def test_the_same_camera_started_anew_goes_on_and_its_drops_are_told(numbers):
    numbers.report(report(0, grab__superseded=50))
    assert numbers.next == 50
    numbers.connect(hello(0), same_camera=True)
    assert numbers.packet() == 50
    numbers.answer()
    assert numbers.report(report(1, grab__superseded=2)) == [Gap(51, 52, {"grab/superseded": 2})]
    # 3 frames are done; 4 more found no detector.
    numbers.connect(hello(7), same_camera=True)
    assert numbers.packet() == 57
    assert numbers.report(report(1, grab__superseded=2, grab__disconnected=4)) == [
        Gap(53, 56, {"grab/disconnected": 4})
    ]


def test_the_first_report_tells_only_what_this_connection_missed():
    """The camera had dropped 100 frames, and had 50 detected, before this detector was there."""
    numbers = FrameNumbers()
    numbers.connect(hello(150), same_camera=False)
    numbers.packet()
    numbers.answer()
    assert numbers.report(report(51, grab__superseded=103)) == [Gap(151, 153, {"grab/superseded": 3})]


def test_numbers_that_are_not_in_a_row_are_several_gaps(numbers):
    assert [(gap.first, gap.last) for gap in numbers.lose([3, 4, 6, 9, 10])] == [(3, 4), (6, 6), (9, 10)]


class Life:
    """A live camera and its detector, and the numbers that consumers are told."""

    def __init__(self) -> None:
        self.numbers, self.told, self.waiting = FrameNumbers(), [], []
        self.detected, self.superseded, self.lost = 0, 0, 0
        self.tell(self.numbers.connect(hello(0), same_camera=False))
        self.report()

    def tell(self, gaps: list[Gap]) -> None:
        for gap in gaps:
            assert sum(gap.reasons.values()) == gap.frames
            self.told += range(gap.first, gap.last + 1)

    def report(self) -> None:
        drops = {"grab__superseded": self.superseded, "network__connection_lost": self.lost}
        self.tell(self.numbers.report(report(self.detected, **drops)))

    def packet(self) -> None:
        self.waiting.append(self.numbers.packet())

    def answer(self) -> None:
        if self.waiting:
            self.told.append(self.waiting.pop(0))
            self.numbers.answer()
            self.detected += 1

    def drop(self) -> None:
        self.superseded += 1

    def lose(self) -> None:
        self.lost += len(self.waiting)
        self.tell(self.numbers.lose(self.waiting))
        self.waiting.clear()
        done = self.detected + self.superseded + self.lost
        self.tell(self.numbers.connect(hello(done), same_camera=True))


def test_every_number_is_told_once():
    choice = random.Random(1)
    for _ in range(200):
        life = Life()
        for _ in range(100):
            choice.choice([life.packet, life.packet, life.answer, life.drop, life.report, life.lose])()
        life.report()
        assert sorted(life.told + life.waiting) == list(range(life.numbers.next))
        assert life.numbers.next == life.detected + life.superseded + life.lost + len(life.waiting)


@pytest.mark.parametrize("count", [0, 1, 2**62])
def test_a_camera_that_counts_backwards_harms_nothing(numbers, count):
    numbers.report(report(10, grab__superseded=5))
    for gap in numbers.report(report(0, grab__superseded=count)):
        assert gap.frames == sum(gap.reasons.values()) > 0
    numbers.connect(hello(0), same_camera=True)
    assert numbers.packet() >= 5
