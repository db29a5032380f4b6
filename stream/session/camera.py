"""The camera's end of the session, as a state machine without I/O: messages in, events out.

No socket, no clock, no task. docs/protocol.md describes the protocol: WebSocket keeps order, so every packet is
answered once, oldest first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from codec.layout import Layout
from stream.errors import InvalidMessage, SessionError
from stream.session.ack import Ack
from stream.session.close_codes import CloseCode
from stream.session.messages import (
    Hello,
    KeyframeRequest,
    ProfileRequest,
    Reject,
    RejectReason,
    Retry,
    TensorShape,
    ToCamera,
    Welcome,
    Window,
    parse_to_camera,
)
from stream.session.step_map import KIND as STEP_MAP
from stream.session.step_map import StepMap

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Accepted:
    """The handshake is done; packets may be sent."""

    window: int
    frames_per_s: float | None = None  # as many as the token allows


@dataclass(frozen=True, slots=True)
class ProfileRequested:
    """The detector lacks the codec's calibration profile: send it now, packed."""


@dataclass(frozen=True, slots=True)
class Acknowledged(Generic[T]):
    """A packet was detected on: the one that was `sent` with this frame."""

    frame: T
    sequence: int
    detections: int
    stages_ns: dict[str, int]


@dataclass(frozen=True, slots=True)
class Rejected(Generic[T]):
    """The packet that was `sent` with this frame yielded no detections."""

    frame: T
    sequence: int
    reason: RejectReason
    detail: str


@dataclass(frozen=True, slots=True)
class KeyframeRequested:
    """The next packet has to be a keyframe."""


@dataclass(frozen=True, slots=True)
class RetryAdvised:
    """The detector is about to close the connection, and can be asked again in `after_s` seconds."""

    after_s: float


@dataclass(frozen=True, slots=True)
class WindowChanged:
    """The detector allows so many unanswered packets from now on."""

    window: int


@dataclass(frozen=True, slots=True)
class StepMapReceived:
    """Which blocks of a frame the detections depend on, for the frames to come: `take_step_map` has it."""

    sequence: int  # of the frame's packet
    data: bytes  # of the size that was announced


CameraEvent: TypeAlias = (
    Accepted
    | ProfileRequested
    | Acknowledged[T]
    | Rejected[T]
    | KeyframeRequested
    | RetryAdvised
    | WindowChanged
    | StepMapReceived
)


class CameraSession(Generic[T]):
    """Camera's end: hello, then packets numbered from zero within the window that both ends allow.

    Holds the window: what the camera keeps of every frame, a T, from `sent` until the answer brings it back.
    """

    def __init__(self, window: int) -> None:
        self._introduced = False
        self._profile: str | None = None  # until it was asked for
        self._step_map_bytes = 0  # of a map; 0: none is wanted
        self._step_map: StepMapReceived | None = None  # the newest that was not taken
        self._own_window = window
        self._window = 0  # nothing may be sent before the welcome
        self._offered = 0  # by the welcome
        self.max_packet_bytes = 0  # that the detector takes, from its welcome on
        self.packets = 0  # sent
        self._unanswered: deque[T] = deque()

    @property
    def accepted(self) -> bool:
        """Whether the detector has said welcome."""
        return self._window > 0

    @property
    def owed(self) -> bool:
        """Whether the detector has something to answer: the hello or a packet."""
        return bool(self._unanswered) if self.accepted else self._introduced

    @property
    def can_send(self) -> bool:
        return len(self._unanswered) < self._window

    @property
    def unanswered(self) -> Sequence[T]:
        """Frames sent and neither acknowledged nor rejected, oldest first."""
        return self._unanswered

    @property
    def answered(self) -> int:
        """Packets acknowledged or rejected."""
        return self.packets - len(self._unanswered)

    @property
    def next_sequence(self) -> int:
        """Sequence number that the next packet has to carry."""
        return self.packets % 2**32

    def introduce(self, hello: Hello, profile: str | None = None) -> str:
        """Text that says hello, once; `profile` is the hash of the codec's calibration profile, if it has one."""
        assert not self._introduced
        self._introduced, self._profile = True, profile
        self._step_map_bytes = hello.step_map_bytes
        return hello.text()

    def sent(self, frame: T) -> None:
        """The packet that carries `next_sequence` goes out.

        Its frame may have been in work when the detector narrowed the window: what the welcome offered may still come.
        """
        assert len(self._unanswered) < self._offered
        self._unanswered.append(frame)
        self.packets += 1

    def drain(self) -> list[T]:
        """Take the frames out that a lost connection leaves unanswered, oldest first."""
        frames = list(self._unanswered)
        self._unanswered.clear()
        return frames

    def take_step_map(self) -> StepMapReceived | None:
        """The newest step map, once."""
        taken, self._step_map = self._step_map, None
        return taken

    def receive(self, data: str | bytes) -> CameraEvent[T]:
        """What the detector says. Raises SessionError where it breaks the protocol."""
        try:
            message = self._parse_binary(data) if isinstance(data, bytes) else parse_to_camera(data)
        except InvalidMessage as error:
            raise SessionError(CloseCode.BAD_MESSAGE, f"not a message of this protocol: {error}") from None
        match message:
            case Retry(after_s=after_s):
                return RetryAdvised(after_s)
            case Welcome() | ProfileRequest():
                return self._admit(message)
        if not self.accepted:
            raise SessionError(CloseCode.BAD_MESSAGE, f"{_name(message)} before the welcome")
        match message:
            case KeyframeRequest():
                return KeyframeRequested()
            case Window(window=window):
                self._window = min(window, self._offered)
                return WindowChanged(self._window)
            case StepMap():
                self._step_map = StepMapReceived(message.newest(self.packets), message.data)
                return self._step_map
        return self._answer(message)

    def _parse_binary(self, data: bytes) -> Ack | StepMap:
        if self._step_map_bytes and data[:1] == bytes((STEP_MAP,)):
            return StepMap.parse(data, self._step_map_bytes)
        return Ack.parse(data)

    def _admit(self, message: Welcome | ProfileRequest) -> CameraEvent[T]:
        """What leads to the first packet."""
        if self.accepted or not self._introduced:
            when = "after the welcome" if self.accepted else "before the hello"
            raise SessionError(CloseCode.BAD_MESSAGE, f"{message.type} {when}")
        if isinstance(message, Welcome):
            self._window = self._offered = min(message.window, self._own_window)
            self.max_packet_bytes = message.max_packet_bytes
            return Accepted(self._window, message.frames_per_s)
        if message.hash != self._profile:
            raise SessionError(CloseCode.BAD_MESSAGE, "a profile_request for another profile, or a second")
        self._profile = None
        return ProfileRequested()

    def _answer(self, message: Ack | Reject) -> CameraEvent[T]:
        """The answer to the oldest packet."""
        if not self._unanswered:
            raise SessionError(CloseCode.BAD_MESSAGE, f"{_name(message)} without an unanswered packet")
        sequence = self.answered % 2**32
        if isinstance(message, Reject):
            return Rejected(self._unanswered.popleft(), sequence, message.reason, message.detail)
        if not message.answers(sequence):
            raise SessionError(
                CloseCode.BAD_MESSAGE,
                f"ack for packet {message.sequence} (modulo 65536), {sequence} is the oldest unanswered",
            )
        return Acknowledged(
            self._unanswered.popleft(),
            sequence,
            message.detections,
            dict(message.stages_ns),
        )


def _name(message: ToCamera | Ack | StepMap) -> str:
    match message:
        case Ack():
            return "ack"
        case StepMap():
            return "step map"
    return message.type


def tensor_shapes(layout: Layout) -> list[TensorShape]:
    """A layout as the hello announces it."""
    return [TensorShape(name=tensor.name, shape=list(tensor.shape)) for tensor in layout]
