"""Rate control against a simulated link; all of it deterministic."""

from __future__ import annotations

from itertools import pairwise

import pytest

from stream.rate.control import START_COARSER, RateControl, StepChoice, Steps
from tests.stream.rate.thin_link import STEPS, Simulation

SEEDS = range(5)
MS = 10**6
BASE_MS = 2 * 25 + 3 * 4  # of the simulated link, and three standard deviations of its jitter


def shrinking(seconds: float) -> float:
    return 300.0 if 10 <= seconds < 22 else 2000.0


def span(values: list[int]) -> int:
    return max(values) - min(values)


@pytest.mark.parametrize("seed", SEEDS)
class TestShrinkingLink:
    @pytest.fixture
    def link(self, seed):
        return Simulation(shrinking, target_kbps=5000, seed=seed).run(36)

    def test_settles_within_three_seconds(self, link):
        for start_s, end_s, capacity in ((3, 10, 2000), (13, 22, 300), (25, 36, 2000)):
            assert link.kbps(start_s, end_s) == pytest.approx(capacity, rel=0.15)
            assert link.reasons(start_s, end_s) == {"link"}

    def test_never_builds_latency(self, link):
        """On top of the way itself: less than two frames' time on the link."""
        for start_s, end_s in ((1, 9), (12, 36)):
            assert link.late_ms(start_s, end_s) < BASE_MS + 2 * link.interval_ms + 50

    def test_what_was_sent_before_the_first_late_answer_bounds_the_latency(self, link):
        """That is three frames here, which the link carried in 200 ms and now takes 6.7 times as long for."""
        largest = max(frame.kilobytes for frame in link.between(9.5, 10.5))
        assert link.late_ms(9, 12) < BASE_MS + link.window * largest * 8e3 / 300

    def test_does_not_oscillate(self, link):
        for start_s, end_s in ((4, 10), (13, 22), (27, 36)):
            assert span(link.steps(start_s, end_s)) <= 10
        changes = [
            one != other for one, other in zip(link.steps(13, 22), link.steps(13, 22)[1:], strict=False)
        ]
        assert sum(changes) <= 9

    def test_sends_nearly_every_frame(self, link):
        """The step comes first, then the frame rate."""
        for start_s, end_s in ((3, 10), (14, 22), (25, 36)):
            assert len(link.between(start_s, end_s)) >= 0.9 * 15 * (end_s - start_s)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("keyframe_interval", [0, 150])
def test_holds_a_target_on_an_ample_link(seed, keyframe_interval):
    link = Simulation(lambda _: 20_000, 500, seed=seed, keyframe_interval=keyframe_interval).run(24)
    assert link.kbps(3, 24) == pytest.approx(500, rel=0.1)
    assert span(link.steps(5, 24)) <= 5
    assert link.reasons(1, 24) == {"target"}
    assert len(link.between(3, 24)) >= 0.98 * 15 * 21


@pytest.mark.parametrize("interval_ms", [1000 / 25, 1000 / 5, 1000])
def test_holds_a_target_at_any_frame_rate(interval_ms):
    link = Simulation(lambda _: 20_000, 300, interval_ms=interval_ms, camera_ms=12, detector_ms=(5, 15))
    link.kilobytes = 128
    assert link.run(60).kbps(15, 60) == pytest.approx(300, rel=0.1)


def test_holds_a_target_where_the_detector_is_the_slow_one():
    link = Simulation(lambda _: 20_000, 500, detector_ms=(140, 160)).run(24)
    assert link.kbps(6, 24) == pytest.approx(500, rel=0.15)
    assert len(link.between(6, 24)) / 18 == pytest.approx(1000 / 150, rel=0.1)


def test_takes_no_more_than_the_quality_asks_for():
    link = Simulation(lambda _: 20_000, 50_000).run(10)
    assert set(link.steps(3, 10)) == {STEPS.finest}
    assert link.reasons(3, 10) == {"quality"}
    assert len(link.between(3, 10)) >= 0.98 * 15 * 7


@pytest.mark.parametrize(("capacity", "target"), [(60, 5000), (20_000, 60)])
@pytest.mark.parametrize("seed", SEEDS)
def test_sends_fewer_frames_where_the_coarsest_step_is_too_large(capacity, target, seed):
    link = Simulation(lambda _: capacity, target, seed=seed, keyframe_factor=2.0).run(40)
    assert set(link.steps(8, 40)) == {STEPS.coarsest}
    assert link.kbps(8, 40) == pytest.approx(60, rel=0.1)
    frame_ms = 2.0 * 8 / 60 * 1e3  # 32 kB at the finest step, four octaves less at the coarsest
    assert link.late_ms(8, 39) < BASE_MS + 3 * frame_ms


@pytest.mark.parametrize("seed", SEEDS)
def test_recovers_from_a_frozen_link(seed):
    frozen = Simulation(lambda s: 0 if 10 <= s < 15 else 2000, target_kbps=1000, seed=seed).run(27)
    during = frozen.between(10.3, 14.9)
    assert not during  # nothing goes into a link that does not answer
    assert frozen.late_ms(15.1, 27) < BASE_MS + 100
    assert frozen.kbps(18, 27) == pytest.approx(1000, rel=0.1)
    assert frozen.kbps(3, 9.9) == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_stays_within_a_latency(seed):
    link = Simulation(shrinking, max_latency_ms=300, seed=seed).run(36)
    for start_s, end_s in ((2, 9), (13, 36)):
        latencies = sorted(link.latency_ms(start_s, end_s))
        assert latencies[int(0.95 * len(latencies))] < 300
    assert link.kbps(25, 36) > 1500


def test_a_latency_alone_may_be_what_limits():
    link = Simulation(lambda _: 2000, max_latency_ms=190, interval_ms=250, kilobytes=64).run(30)
    latencies = sorted(link.latency_ms(4, 30))
    assert latencies[int(0.95 * len(latencies))] < 190
    assert link.reasons(4, 30) == {"latency"}
    assert min(link.steps(4, 30)) < STEPS.coarsest


def test_a_latency_out_of_reach_takes_the_coarsest_step():
    link = Simulation(lambda _: 2000, max_latency_ms=50).run(10)
    assert set(link.steps(4, 10)) == {STEPS.coarsest}
    assert len(link.between(4, 10)) >= 0.9 * 15 * 6


def test_a_latency_that_the_link_has_no_part_in_costs_no_quality():
    """Coarser frames would not make the detector faster."""
    link = Simulation(lambda _: 100_000, max_latency_ms=150, detector_ms=(80, 100), kilobytes=16).run(10)
    assert set(link.steps(4, 10)) == {STEPS.finest}
    assert min(link.latency_ms(4, 10)) > 150


@pytest.mark.parametrize("one_way_ms", [1, 100])
@pytest.mark.parametrize("steps_per_octave", [16, 32])
def test_learns_the_link_and_the_codec(one_way_ms, steps_per_octave):
    link = Simulation(
        lambda _: 1500, 5000, one_way_ms=one_way_ms, steps_per_octave=steps_per_octave, window=8
    ).run(20)
    assert link.kbps(4, 20) == pytest.approx(1500, rel=0.15)
    assert link.control.link.base_ms == pytest.approx(2 * one_way_ms, abs=30)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_keyframe_does_not_move_the_frames_after_it(seed):
    link = Simulation(lambda _: 20_000, 500, seed=seed, keyframe_interval=200, keyframe_factor=10).run(20)
    keyframe = next(frame for frame in link.sent[1:] if frame.keyframe).sent_ms / 1000
    before, after = link.steps(keyframe - 2, keyframe), link.steps(keyframe, keyframe + 4)
    assert abs(sum(after) / len(after) - sum(before) / len(before)) <= 3
    assert len(link.between(keyframe, keyframe + 4)) >= 0.95 * 15 * 4


def test_jitter_of_a_radio_link_costs_little():
    link = Simulation(shrinking, target_kbps=5000, jitter_ms=20).run(36)
    assert link.kbps(13, 22) == pytest.approx(300, rel=0.2)
    assert link.kbps(3, 10) > 1200


class TestControl:
    @pytest.fixture
    def control(self):
        control = RateControl(STEPS, target_kbps=1000)
        control.connect(window=3)
        return control

    def round_trip(
        self, control: RateControl, at_ms: int, size: int = 8000, keyframe: bool = False
    ) -> StepChoice:
        choice = control.choose(keyframe)
        control.take(at_ms * MS)
        packet = control.send(size, keyframe, choice.step, at_ms * MS, (at_ms + 20) * MS)
        control.acknowledge(packet, 10 * MS, (at_ms + 90) * MS)
        return choice

    def test_sends_one_frame_into_an_unknown_link(self, control):
        assert control.wait_ns(0, []) == 0
        assert control.choose(keyframe=True) == StepChoice(STEPS.finest + START_COARSER, "start")
        packet = control.send(30_000, True, 96, 0, 20 * MS)
        assert control.wait_ns(10_000 * MS, [packet]) is None
        control.acknowledge(packet, 10 * MS, 150 * MS)
        assert control.wait_ns(300 * MS, []) == 0

    def test_a_reject_lets_it_go_on(self, control):
        control.send(30_000, True, 96, 0, 0)
        control.reject()
        assert control.wait_ns(MS, []) == 0
        assert control.choose(keyframe=False).reason == "start"

    def test_starts_again_with_every_connection(self, control):
        for number in range(40):
            self.round_trip(control, 100 * number, keyframe=number == 0)
        assert control.choice.reason == "target"
        control.send(8000, False, control.choice.step, 0, 5000 * MS)
        control.connect(window=3)
        assert control.choose(keyframe=True).reason == "start"
        assert control.choose(keyframe=True).step >= STEPS.finest + START_COARSER

    def test_a_requested_keyframe_may_be_coarser_than_the_frames_around_it(self, control):
        self.round_trip(control, 0, 60_000, keyframe=True)
        for number in range(1, 30):
            self.round_trip(control, 100 * number)
        held = control.choice
        assert control.choose(keyframe=True).step >= held.step
        assert control.choice == held

    def test_becomes_finer_in_small_steps(self):
        """A finer step also mends what the coarser ones left: all at once it would be a keyframe."""
        control = RateControl(STEPS, target_kbps=50_000)
        control.connect(window=3)
        steps = []
        for number in range(30):
            size = round(8000 * 2 ** ((STEPS.finest - (steps[-1] if steps else 96)) / 24))
            steps.append(self.round_trip(control, 100 * number, size, number == 0).step)
        assert steps[0] == STEPS.finest + START_COARSER
        assert all(one - other <= 6 for one, other in pairwise(steps))
        assert steps[-1] == STEPS.finest

    def test_what_else_is_sent_counts(self, control):
        for number in range(30):
            self.round_trip(control, 100 * number, keyframe=number == 0)
        rate = control.link.kbps
        control.send_beside(40_000)  # a preview
        packet = control.send(8000, False, 96, 3000 * MS, 3020 * MS)
        late_ms = 48 * control.link.ms_per_kb - 8 * control.link.ms_per_kb
        control.acknowledge(packet, 10 * MS, round((3090 + late_ms) * MS))
        assert control.link.kbps == pytest.approx(rate, rel=0.1)

    def test_without_a_target_it_only_watches(self):
        control = RateControl(None)
        control.connect(window=3)
        packet = control.send(500_000, True, None, 0, 0)
        assert control.wait_ns(MS, [packet]) == 0
        control.acknowledge(packet, 10 * MS, 2100 * MS)
        assert control.link.kbps == pytest.approx(2000, rel=0.1)

    @pytest.mark.parametrize("detector_ns", [0, 10**9, 2**63])
    def test_a_detector_may_tell_anything(self, control, detector_ns):
        for number in range(20):
            choice = control.choose(number == 0)
            assert STEPS.finest <= choice.step <= STEPS.coarsest
            packet = control.send(8000, number == 0, choice.step, number * 100 * MS, number * 100 * MS)
            control.acknowledge(packet, detector_ns, (number * 100 + 80) * MS)
        assert control.link.kbps > 0
        assert control.wait_ns(3000 * MS, []) == 0

    def test_one_step_alone_is_a_range(self):
        control = RateControl(Steps(80, 80), target_kbps=100)
        control.connect(window=1)
        assert {self.round_trip(control, 100 * number, keyframe=number == 0).step for number in range(9)} == {
            80
        }
        assert control.wait_ns(900 * MS, []) > 0
