"""A camera under rate control, a thin link and a detector, as one deterministic simulation in steps of 1 ms."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from stream.rate.control import RateControl, StepChoice, Steps
from stream.rate.link import SentPacket

STEPS = Steps(finest=64, coarsest=160)


@dataclass
class Sent:
    """A frame that was sent."""

    sent_ms: float
    captured_ms: float
    kilobytes: float
    keyframe: bool
    choice: StepChoice
    packet: SentPacket
    answered_ms: float | None = None
    detector_ms: float = 0.0

    @property
    def late_ms(self) -> float:
        """From sending to the answer, without the detector's time."""
        assert self.answered_ms is not None
        return self.answered_ms - self.sent_ms - self.detector_ms


@dataclass
class Simulation:
    """Frames of `kilobytes` at the finest step go over a fluid link of `capacity` kbit/s at a time in seconds."""

    capacity: Callable[[float], float]
    target_kbps: float | None = None
    max_latency_ms: float | None = None
    seed: int = 0
    kilobytes: float = 32.0
    steps_per_octave: float = 24.0  # of bytes
    noise: float = 0.1  # standard deviation of the bytes, in octaves
    keyframe_factor: float = 6.0
    keyframe_interval: int = 0  # 0: only the first
    interval_ms: float = 1000 / 15
    one_way_ms: float = 25.0
    jitter_ms: float = 4.0
    detector_ms: tuple[float, float] = (20.0, 60.0)
    camera_ms: float = 30.0
    window: int = 3
    sent: list[Sent] = field(default_factory=list)
    captured: int = 0

    def run(self, seconds: float) -> Simulation:
        self.control = RateControl(STEPS, self.target_kbps, self.max_latency_ms)
        self.control.connect(self.window)
        self._numbers = random.Random(self.seed)
        self._mailbox: float | None = None  # when its frame was captured
        self._working: tuple[float, float] | None = None  # a frame in head and encoder: captured, done
        self._unanswered: deque[SentPacket] = deque()
        self._link: deque[Sent] = deque()
        self._left_kb = 0.0  # of the first one
        self._far: deque[tuple[float, Sent]] = deque()  # by when they arrive at the detector
        self._near: deque[tuple[float, Sent]] = deque()  # by when their answers arrive
        self._far_ms = self._near_ms = self._detector_free_ms = 0.0
        for now in range(round(seconds * 1000)):
            capacity = self.capacity(now / 1000)
            self._camera(now)
            self._carry(now, capacity / 8e3)
            self._detect(now)
            while self._near and self._near[0][0] <= now and capacity:
                frame = self._near.popleft()[1]
                frame.answered_ms = now
                self._unanswered.popleft()
                self.control.acknowledge(frame.packet, round(frame.detector_ms * 1e6), now * 10**6)
        return self

    def _camera(self, now: int) -> None:
        if now >= self.captured * self.interval_ms:
            self.captured += 1
            self._mailbox = float(now)  # the newest wins
            self.control.capture(now * 10**6)
        if self._working and now >= self._working[1]:
            captured_ms, self._working = self._working[0], None
            self._send(now, captured_ms)
        elif (
            not self._working
            and self._mailbox is not None
            and len(self._unanswered) < self.window
            and self.control.wait_ns(now * 10**6, self._unanswered) == 0
        ):
            self.control.take(now * 10**6)
            done_ms = now + self.camera_ms + self._numbers.uniform(-5, 5)
            self._working, self._mailbox = (self._mailbox, done_ms), None

    def _send(self, now: int, captured_ms: float) -> None:
        number = len(self.sent)
        keyframe = number % self.keyframe_interval == 0 if self.keyframe_interval else number == 0
        choice = self.control.choose(keyframe=number == 0)
        assert STEPS.finest <= choice.step <= STEPS.coarsest
        octaves = self._numbers.gauss(0, self.noise) - (choice.step - STEPS.finest) / self.steps_per_octave
        kilobytes = self.kilobytes * 2**octaves * (self.keyframe_factor if keyframe else 1)
        packet = self.control.send(
            round(kilobytes * 1e3), keyframe, choice.step, round(captured_ms * 1e6), now * 10**6
        )
        frame = Sent(now, captured_ms, kilobytes, keyframe, choice, packet)
        self._unanswered.append(packet)
        self.sent.append(frame)
        self._left_kb = self._left_kb if self._link else kilobytes
        self._link.append(frame)

    def _carry(self, now: int, kilobytes: float) -> None:
        while self._link and kilobytes >= self._left_kb:
            kilobytes -= self._left_kb
            self._far_ms = max(self._far_ms, now + self.one_way_ms + self._jitter())
            self._far.append((self._far_ms, self._link.popleft()))
            self._left_kb = self._link[0].kilobytes if self._link else 0.0
        self._left_kb -= kilobytes if self._link else 0.0

    def _detect(self, now: int) -> None:
        while self._far and self._far[0][0] <= now:
            arrival_ms, frame = self._far.popleft()
            self._detector_free_ms = max(self._detector_free_ms, arrival_ms)
            self._detector_free_ms += self._numbers.uniform(*self.detector_ms)
            frame.detector_ms = self._detector_free_ms - arrival_ms
            self._near_ms = max(self._near_ms, self._detector_free_ms + self.one_way_ms + self._jitter())
            self._near.append((self._near_ms, frame))

    def _jitter(self) -> float:
        return abs(self._numbers.gauss(0, self.jitter_ms))

    def between(self, start_s: float, end_s: float) -> list[Sent]:
        """What was sent in that time."""
        return [frame for frame in self.sent if start_s * 1000 <= frame.sent_ms < end_s * 1000]

    def kbps(self, start_s: float, end_s: float) -> float:
        """Rate of what was sent in that time."""
        return sum(frame.kilobytes for frame in self.between(start_s, end_s)) * 8 / (end_s - start_s)

    def steps(self, start_s: float, end_s: float) -> list[int]:
        """Steps of the differences that were sent in that time."""
        return [frame.choice.step for frame in self.between(start_s, end_s) if not frame.keyframe]

    def reasons(self, start_s: float, end_s: float) -> set[str]:
        return {frame.choice.reason for frame in self.between(start_s, end_s)}

    def late_ms(self, start_s: float, end_s: float) -> float:
        """The longest way to the detector and back of what was sent in that time."""
        return max(frame.late_ms for frame in self.between(start_s, end_s) if frame.answered_ms)

    def latency_ms(self, start_s: float, end_s: float) -> list[float]:
        """Capture to answer, of what was sent in that time."""
        return [
            frame.answered_ms - frame.captured_ms
            for frame in self.between(start_s, end_s)
            if frame.answered_ms
        ]
