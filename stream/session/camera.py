"""The camera's end of the session, as a state machine without I/O: texts in, events out.

No socket, no clock, no task. docs/protocol.md describes the protocol: WebSocket keeps order, so every packet is
answered once, oldest first.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from codec.layout import Layout
from stream.errors import InvalidMessage, SessionError
from stream.session.close_codes import CloseCode
from stream.session.messages import (
    Hello,
    KeyframeRequest,
    ProfileRequest,
    Reject,
    RejectReason,
    TensorShape,
    Welcome,
    parse_to_camera,
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The handshake is done; packets may be sent."""

    window: int


@dataclass(frozen=True, slots=True)
class ProfileRequested:
    """The detector lacks the codec's calibration profile: send it now, packed."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A packet was detected on."""

    sequence: int
    captured_ns: int
    detections: int
    stages_ns: dict[str, int]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A packet yielded no detections."""

    sequence: int
    reason: RejectReason
    detail: str


@dataclass(frozen=True, slots=True)
class KeyframeRequested:
    """The next packet has to be a keyframe."""


CameraEvent: TypeAlias = Accepted | ProfileRequested | Acknowledged | Rejected | KeyframeRequested


class CameraSession:
    """Camera's end: hello, then packets numbered from zero within the window that both ends allow.

    `profile` is the hash of the codec's calibration profile, None where it has none.
    """

    def __init__(self, hello: Hello, window: int, profile: str | None = None) -> None:
        self.hello = hello
        self._profile = profile  # until it was asked for
        self._own_window = window
        self._window = 0  # nothing may be sent before the welcome
        self._sequence = 0
        self._unanswered: deque[int] = deque()

    @property
    def can_send(self) -> bool:
        return len(self._unanswered) < self._window

    @property
    def unanswered(self) -> int:
        """Packets sent and neither acknowledged nor rejected."""
        return len(self._unanswered)

    @property
    def next_sequence(self) -> int:
        """Sequence number that the next packet has to carry."""
        return self._sequence

    def sent(self) -> None:
        """Book the packet that carries `next_sequence`."""
        assert self.can_send
        self._unanswered.append(self._sequence)
        self._sequence = (self._sequence + 1) % 2**32

    def receive(self, text: str) -> CameraEvent:
        """What the detector says. Raises SessionError where it breaks the protocol."""
        try:
            message = parse_to_camera(text)
        except InvalidMessage as error:
            raise SessionError(CloseCode.BAD_MESSAGE, f"not a message of this protocol: {error}") from None
        if isinstance(message, Welcome):
            if self._window:
                raise SessionError(CloseCode.BAD_MESSAGE, "a second welcome")
            self._window = min(message.window, self._own_window)
            return Accepted(self._window)
        if isinstance(message, ProfileRequest):
            if self._window:
                raise SessionError(CloseCode.BAD_MESSAGE, "a profile_request after the welcome")
            if message.hash != self._profile:
                raise SessionError(
                    CloseCode.BAD_MESSAGE, "a profile_request for another profile, or a second"
                )
            self._profile = None
            return ProfileRequested()
        if not self._window:
            raise SessionError(CloseCode.BAD_MESSAGE, f"{message.type} before the welcome")
        if isinstance(message, KeyframeRequest):
            return KeyframeRequested()
        if not self._unanswered:
            raise SessionError(CloseCode.BAD_MESSAGE, f"{message.type} without an unanswered packet")
        sequence = self._unanswered.popleft()
        if isinstance(message, Reject):
            return Rejected(sequence, message.reason, message.detail)
        if message.sequence != sequence:
            raise SessionError(
                CloseCode.BAD_MESSAGE,
                f"ack for packet {message.sequence}, {sequence} is the oldest unanswered",
            )
        return Acknowledged(sequence, message.captured_ns, message.detections, dict(message.stages_ns))


def tensor_shapes(layout: Layout) -> list[TensorShape]:
    """A layout as the hello announces it."""
    return [TensorShape(name=tensor.name, shape=list(tensor.shape)) for tensor in layout]
