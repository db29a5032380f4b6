"""One camera's packets on a worker's threads: what is done in one of its turns."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from codec.errors import BitstreamError, MissingReference, ReferenceMismatch
from codec.interface import DecodedFrame, Decoder
from codec.layout import FloatArray
from codec.packet import PacketHeader
from services.detector.inference import InferredFrame
from stream.latency import StageClock
from stream.letterbox import Letterbox
from stream.session.camera_clock import FrameAges
from stream.session.messages import RejectReason

Detect = Callable[[Mapping[str, FloatArray], Letterbox, StageClock], InferredFrame]
"""The rest of the network, for one frame's tensors."""


class StaleFrame(Exception):
    """A frame of a live camera that is no use any more."""


class RejectedPacket(Exception):
    """A packet that another process has worked on, or was lost with it: the reason that it has for giving nothing."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: RejectReason = reason


def reject_reason(error: Exception) -> RejectReason:
    """Why a frame failed, in the decoder or behind it, as the protocol names it."""
    match error:
        case RejectedPacket(reason=reason):
            return reason
        case MissingReference():
            return "missing_reference"
        case ReferenceMismatch():
            return "reference_mismatch"
        case BitstreamError():
            return "corrupt"
        case StaleFrame():
            return "stale"
        case _:
            return "error"


@dataclass(frozen=True, slots=True, eq=False)
class ReceivedPacket:
    """A packet, its frame's number, and the clock that runs since it came."""

    data: bytes
    number: int
    clock: StageClock
    received_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class DetectedFrame:
    """What was found in a frame."""

    header: PacketHeader
    size: tuple[int, int]  # (H, W) of the original picture, in pixels
    inferred: InferredFrame


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredPacket:
    """A packet and what there is to say of it: detections, or why there are none to have."""

    packet: ReceivedPacket
    outcome: DetectedFrame | Exception


class CameraTurns:
    """Decodes a camera's packets in order, and detects on its frames: at most one of each a turn.

    Of a live camera the newest frame is detected on: while another packet waits, a decoded frame waits with it, and
    gives way as soon as that one is decoded, too; it was needed as a reference only. So of a camera there is never
    more than one frame with its tensors, which hold memory. Of a file every frame is detected on.

    `put` may be called on another thread than `turn`.
    """

    def __init__(
        self, decoder: Decoder, detect: Detect, canvas: tuple[int, int], *, live: bool, max_age_s: float
    ) -> None:
        self._decoder, self._detect, self._canvas = decoder, detect, canvas
        self._live, self._max_age_s = live, max_age_s
        self._ages = FrameAges()
        self._received: deque[ReceivedPacket] = deque()  # bounded by the session's window
        self._unanswered: list[AnsweredPacket] = []  # decoded, in order, around the frame that waits
        self._frame: _WaitingFrame | None = None

    def __len__(self) -> int:
        """Packets that wait for a turn."""
        return len(self._received)

    def put(self, packet: ReceivedPacket) -> None:
        """Add the next packet."""
        self._received.append(packet)

    def turn(self) -> list[AnsweredPacket]:
        """Work on the oldest packet that waits; the packets that are to be answered now, oldest first.

        There has to be a packet.
        """
        self._decode(self._received.popleft())
        if self._frame and self._live and self._received:
            return []
        if self._frame:
            self._infer(self._frame)
            self._frame = None
        answered, self._unanswered = self._unanswered, []
        return answered

    def _decode(self, packet: ReceivedPacket) -> None:
        packet.clock.lap("queue", time.monotonic_ns())
        try:
            frame = self._decoder.decode(packet.data)
        except Exception as error:  # the camera gets to know in its turn
            self._unanswered.append(AnsweredPacket(packet, error))
            return
        packet.clock.lap("decode", time.monotonic_ns())
        self._ages.arrive(frame.header.captured_ns, packet.received_ns)
        self._unanswered.append(AnsweredPacket(packet, StaleFrame("a newer one has come")))
        self._frame = _WaitingFrame(frame, packet, len(self._unanswered) - 1)

    def _infer(self, waiting: _WaitingFrame) -> None:
        frame, clock = waiting.frame, waiting.packet.clock
        clock.lap("queue", time.monotonic_ns())
        letterbox = Letterbox(self._frame_size(frame), self._canvas)
        outcome: DetectedFrame | Exception
        try:
            self._refuse_old(frame)
            outcome = DetectedFrame(
                frame.header, letterbox.frame, self._detect(frame.tensors, letterbox, clock)
            )
        except Exception as error:  # costs one frame
            outcome = error
        self._unanswered[waiting.place] = AnsweredPacket(waiting.packet, outcome)

    def _refuse_old(self, frame: DecodedFrame) -> None:
        age_s = self._ages.age_s(frame.header.captured_ns, time.monotonic_ns())
        if self._live and age_s > self._max_age_s:
            raise StaleFrame(f"{age_s:.1f} s old; at most {self._max_age_s:g} s (--max-age-s)")

    def _frame_size(self, frame: DecodedFrame) -> tuple[int, int]:
        """(H, W) of the original picture; the canvas where the packet does not say."""
        header = frame.header
        if header.frame_height and header.frame_width:
            return header.frame_height, header.frame_width
        return self._canvas


@dataclass(frozen=True, slots=True, eq=False)
class _WaitingFrame:
    """A decoded frame, and where its packet stands among the unanswered ones."""

    frame: DecodedFrame
    packet: ReceivedPacket
    place: int
