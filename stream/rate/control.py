"""Rate control: which quantizer step the next frame gets, and when it may go. No clock, no socket, no codec.

The bytes of a frame fall by a constant factor per unit of step, so a budget of bytes is a step. The budget is the
smallest of what was asked for in kbit/s, what the link carries, and what it carries in the time that a latency
leaves; never more than the quality asks for. Where even the coarsest step is too large for it, frames go less often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from stream.rate.frame_size import FrameBytes
from stream.rate.link import LinkEstimate, SentPacket

Reason: TypeAlias = Literal["quality", "target", "link", "latency", "start"]
"""What chose the step.

quality: nothing asks for fewer bytes than the codec's quality. target: the kbit/s asked for. link: what the link
carries. latency: the latency asked for. start: nothing is known of this connection's link yet.
"""
REASONS: tuple[Reason, ...] = get_args(Reason)

UTILIZATION = 0.95  # of the link: the rest absorbs frames that are larger than expected
SLACK = 0.5  # of an interval: how long a new frame may have to wait for the link
SLACK_MS = 100.0  # at most
LONGEST_MS = 250.0  # that a frame may occupy the link where the link limits it
KEYFRAME_MS = 400.0  # the same of a keyframe
RISE = 2.0  # octaves a second, by which trust in the link grows at most
RISE_MS = 500.0  # time constant of that growth, and of noise
DROP = 0.3  # octaves: a larger fall is followed fast,
FALL = 0.6  # by this part with every answer
DEBT_S = 1.0  # of the target may be taken in advance, by keyframes, before frames are held back
DEBT_PAID_S = 6.0  # time constant of paying it back
DEBT_SHARE = 0.06  # of the target pays it back, at most: a keyframe must not show in the frames after it
KEYFRAME_COARSER = 32  # steps at most, than the frames around it
DIFFERENCE = 3.0  # times smaller than a keyframe, until known
LEAST_SHARE = 0.1  # of a latency is always the link's: to coarsen frames for less would gain nothing
START_COARSER = 32  # steps: the first frame of a connection meets an unknown link
FINER = 6  # steps at most from frame to frame: each also mends what coarser ones before it left
FAR = 12  # steps: a smaller correction has to be wanted on average,
NEAR = 2.0  # and by so many
AVERAGE = 0.1  # gain of that average


@dataclass(frozen=True, slots=True)
class Steps:
    """Range of steps: `finest` is what the quality asks for, `coarsest` the last one that is of use."""

    finest: int
    coarsest: int


@dataclass(frozen=True, slots=True)
class StepChoice:
    """A step and what chose it."""

    step: int
    reason: Reason


class RateControl:
    """Rate control of one camera, over all its connections. Times are ns of one clock.

    Without a target and a latency it only watches: every frame may go at once, and `link` tells about the link.
    Whoever sends keeps what `send` returns until the packet is answered.
    """

    def __init__(
        self, steps: Steps | None, target_kbps: float | None = None, max_latency_ms: float | None = None
    ) -> None:
        self.link = LinkEstimate()
        self.choice: StepChoice | None = None  # the last one for a frame that was no keyframe
        self.active = target_kbps is not None or max_latency_ms is not None
        assert steps is not None or not self.active
        self._steps = steps or Steps(0, 0)
        self._target_kb_ms = target_kbps / 8e3 if target_kbps else None
        self._max_latency_ms = max_latency_ms
        self._differences = FrameBytes(self._steps.finest)
        self._keyframes = FrameBytes(self._steps.finest)
        self._beside_kb = 0.0  # sent since the last packet, and in front of the next
        self._after_keyframe = False
        self._off = 0.0  # running mean of the correction that is wanted
        self._trusted: float | None = None  # log2 of the kbit/s that the link is trusted with
        self._answered_ms = 0.0
        self._debt_kb = 0.0
        self._debt_ms: float | None = None
        self._elsewhere_ms: float | None = None  # of a frame's latency, all but the time of its bytes
        self._elsewhere_deviation_ms = 0.0
        # What decides how often frames come.
        self._window = 1
        self._source_ms = 0.0
        self._captured_ms: float | None = None
        self._taken_ms: float | None = None
        self._camera_ms = 30.0  # from taking a frame to sending it
        self._service_ms = 0.0  # of a frame, on the link

    # --- what happens ---

    def connect(self, window: int) -> None:
        """A connection begins, with at most so many unanswered packets: nothing is known of its link."""
        self.link = LinkEstimate()
        self._window = window
        self._beside_kb = 0.0
        self._trusted = self._elsewhere_ms = self._taken_ms = None
        if self.choice:
            self.choice = self._start()

    def capture(self, captured_ns: int) -> None:
        """A live source has a new frame. A file has one whenever one is taken, which tells nothing."""
        captured_ms = captured_ns / 1e6
        if self._captured_ms is not None:
            interval_ms = min(captured_ms - self._captured_ms, 10_000.0)
            self._source_ms += 0.1 * (interval_ms - self._source_ms)
        self._captured_ms = captured_ms

    def take(self, now_ns: int) -> None:
        """A frame is taken from the source."""
        self._taken_ms = now_ns / 1e6

    def send(self, size: int, keyframe: bool, step: int | None, captured_ns: int, now_ns: int) -> SentPacket:
        """A frame goes out as a packet of `size` bytes: what its answer, and the wait until then, need of it."""
        now_ms, kilobytes = now_ns / 1e6, size / 1e3
        if self._taken_ms is not None:
            self._camera_ms += 0.1 * (now_ms - self._taken_ms - self._camera_ms)
        if step is not None:
            if keyframe:
                self._keyframes.learn(kilobytes, step)
            if not keyframe or self._after_keyframe:  # of two in a row the second is no exception
                self._differences.learn(kilobytes, step)
            self._after_keyframe = keyframe
        kilobytes += self._beside_kb
        self._beside_kb = 0.0
        self._pay(now_ms)
        self._debt_kb += kilobytes
        return SentPacket(kilobytes, captured_ns / 1e6, now_ms)

    def send_beside(self, size: int) -> None:
        """Something other than a packet goes out."""
        self._beside_kb += size / 1e3

    def acknowledge(self, packet: SentPacket, detector_ns: int, now_ns: int) -> None:
        """The oldest unanswered packet was detected on; the detector had it for `detector_ns`."""
        now_ms = now_ns / 1e6
        self.link.answer(packet, detector_ns / 1e6, now_ms)
        self._trust(now_ms)
        service_ms = packet.kilobytes * self.link.ms_per_kb
        self._service_ms += 0.2 * (service_ms - self._service_ms)
        elsewhere_ms = max(0.0, now_ms - packet.captured_ms - service_ms)
        if self._elsewhere_ms is None:
            self._elsewhere_ms = elsewhere_ms
        error_ms = elsewhere_ms - self._elsewhere_ms
        self._elsewhere_ms += error_ms / 16
        self._elsewhere_deviation_ms += (abs(error_ms) - self._elsewhere_deviation_ms) / 16

    def reject(self) -> None:
        """The oldest unanswered packet was not detected on."""
        self.link.lose()

    # --- what to do ---

    def wait_ns(self, now_ns: int, unanswered: Sequence[SentPacket]) -> int | None:
        """How long the next frame should not be taken yet; 0: take it, None: not before an answer.

        `unanswered` are this connection's packets without an answer, oldest first.
        """
        if not self.active:
            return 0
        now_ms, wait_ms, link = now_ns / 1e6, 0.0, self.link
        if unanswered:
            if not link.answers or link.overdue(unanswered[0], now_ms):
                return None
            slack_ms = min(SLACK_MS, SLACK * self._interval_ms)
            wait_ms = link.busy_until_ms(unanswered) - slack_ms - (now_ms + self._camera_ms)
        if self._target_kb_ms:
            self._pay(now_ms)
            wait_ms = max(wait_ms, self._debt_kb / self._target_kb_ms - DEBT_S * 1e3)
        return round(wait_ms * 1e6) if wait_ms > 1.0 else 0  # timers are no finer

    def choose(self, keyframe: bool) -> StepChoice:
        """The step of the next frame; `keyframe` if that is known to be one."""
        if not self.active:
            self.choice = StepChoice(self._steps.finest, "quality")
            return self.choice
        if self._trusted is None:
            self.choice = self._start()
            return self.choice
        budgeted = self._budgeted(keyframe)
        if keyframe:
            return budgeted
        assert self.choice is not None
        step, reason = self._steady(budgeted.step), budgeted.reason
        if step == self._steps.finest:
            reason = "quality"
        elif reason == "quality":  # not there yet
            reason = self.choice.reason
        self.choice = StepChoice(step, reason)
        return self.choice

    def _start(self) -> StepChoice:
        step = self._steps.finest + START_COARSER
        if self.choice:
            step = max(step, self.choice.step)
        return StepChoice(min(step, self._steps.coarsest), "start")

    def _budgeted(self, keyframe: bool) -> StepChoice:
        """The step whose bytes meet the smallest budget."""
        budgets = self._budgets(keyframe)
        reason = min(budgets, key=budgets.__getitem__)
        kilobytes = budgets[reason]
        if keyframe:
            model = self._keyframes if self._keyframes.known else self._differences
        elif self._differences.known:
            model = self._differences
        else:
            model, kilobytes = self._keyframes, kilobytes * DIFFERENCE
        step = model.step_for(kilobytes)
        if keyframe and self.choice:
            step = min(max(step, self.choice.step), self.choice.step + KEYFRAME_COARSER)
        if step <= self._steps.finest:
            return StepChoice(self._steps.finest, "quality")
        return StepChoice(min(round(step), self._steps.coarsest), reason)

    def _steady(self, budgeted: int) -> int:
        """The step to take: the budgeted one where it is far off, else only as far as budgets want it on average."""
        assert self.choice is not None
        step = self.choice.step
        self._off += AVERAGE * (budgeted - step - self._off)
        at_an_end = budgeted in (self._steps.finest, self._steps.coarsest)
        if abs(budgeted - step) >= FAR or (at_an_end and abs(self._off) >= 0.5):
            move = budgeted - step
        elif abs(self._off) >= NEAR:
            move = round(self._off)
        else:
            return step
        self._off = 0.0
        return min(max(step + max(move, -FINER), self._steps.finest), self._steps.coarsest)

    def _budgets(self, keyframe: bool) -> dict[Reason, float]:
        """kB that the next frame may take, by what limits it."""
        assert self._trusted is not None
        link_kb_ms = UTILIZATION * 2**self._trusted / 8e3
        interval_ms = self._interval_ms
        budgets: dict[Reason, float] = {
            "link": link_kb_ms * (KEYFRAME_MS if keyframe else min(interval_ms, LONGEST_MS))
        }
        if self._target_kb_ms:
            owed = min(DEBT_SHARE, self._debt_kb / (self._target_kb_ms * DEBT_PAID_S * 1e3))
            frame_ms = max(interval_ms, KEYFRAME_MS) if keyframe else interval_ms
            budgets["target"] = self._target_kb_ms * frame_ms * (1 - owed)
        if self._max_latency_ms is not None and self._elsewhere_ms is not None:
            left_ms = self._max_latency_ms - self._elsewhere_ms - 2 * self._elsewhere_deviation_ms
            budgets["latency"] = link_kb_ms * max(left_ms, LEAST_SHARE * self._max_latency_ms)
        return budgets

    # --- estimates ---

    @property
    def _interval_ms(self) -> float:
        """From frame to frame if none is held back: what the slowest of source, camera and window makes of it."""
        answer_ms = self._service_ms + self.link.base_ms + self.link.detector_ms
        return max(self._source_ms, self._camera_ms, answer_ms / self._window)

    def _trust(self, now_ms: float) -> None:
        """Follow what the link was measured to carry: a rise slowly, a fall fast."""
        measured = math.log2(self.link.kbps)
        elapsed_ms = min(now_ms - self._answered_ms, RISE_MS)
        self._answered_ms = now_ms
        if self._trusted is None:
            self._trusted = measured
            return
        change = measured - self._trusted
        if change < -DROP:
            self._trusted += FALL * change
        else:
            self._trusted += min(change * elapsed_ms / RISE_MS, RISE * elapsed_ms / 1e3)

    def _pay(self, now_ms: float) -> None:
        """Let time pay for what was sent, and keep what is owed or saved within a second's worth or two."""
        if self._target_kb_ms:
            elapsed_ms = now_ms - self._debt_ms if self._debt_ms is not None else 0.0
            second_kb = self._target_kb_ms * 1e3
            self._debt_kb = min(
                2 * second_kb, max(-second_kb, self._debt_kb - elapsed_ms * self._target_kb_ms)
            )
            self._debt_ms = now_ms
