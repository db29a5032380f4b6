"""The session between a camera and a detector, as two state machines without I/O.

They take texts and packets and return events and texts. No socket, no clock, no task. docs/protocol.md describes
the protocol: WebSocket keeps order, so every packet is answered once, oldest first.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, TypeAlias

from codec.errors import BadCodecSpec, BadLayout, UnknownProfile
from codec.feature.profile import Profile, ProfileError
from codec.layout import Layout, TensorSpec
from codec.spec import CodecSpec
from stream.session.messages import (
    PROTOCOL_VERSION,
    Ack,
    Hello,
    InvalidMessage,
    KeyframeRequest,
    Preview,
    ProfileRequest,
    Reject,
    Report,
    TensorShape,
    Welcome,
    parse_to_camera,
    parse_to_detector,
)

_SHA256 = re.compile("[0-9a-f]{64}")


class CloseCode(IntEnum):
    """Why an end closes the WebSocket; 4000-4999 are this protocol's own."""

    NORMAL = 1000
    GOING_AWAY = 1001
    INTERNAL_ERROR = 1011
    TRY_AGAIN_LATER = 1013
    BAD_MESSAGE = 4400
    PREVIEW_REFUSED = 4403
    PROFILE_REFUSED = 4405
    BAD_SUBPROTOCOL = 4406
    HELLO_TIMEOUT = 4408
    STREAM_TAKEN = 4409
    WEIGHTS_DIFFER = 4410
    SPLIT_UNKNOWN = 4411
    SHAPES_DIFFER = 4412
    PACKET_TOO_LARGE = 4413
    CODEC_REFUSED = 4415
    PROTOCOL_VERSION = 4426
    WINDOW_EXCEEDED = 4428
    TOO_MANY_STREAMS = 4429


# A camera sends about one preview a second; what a stalled link gathers may come at once.
PREVIEW_INTERVAL_NS = 250_000_000
PREVIEW_BURST = 16

# Refusals that the same settings will meet again.
PERMANENT = frozenset(
    {
        CloseCode.BAD_MESSAGE,
        CloseCode.PREVIEW_REFUSED,
        CloseCode.PROFILE_REFUSED,
        CloseCode.BAD_SUBPROTOCOL,
        CloseCode.WEIGHTS_DIFFER,
        CloseCode.SPLIT_UNKNOWN,
        CloseCode.SHAPES_DIFFER,
        CloseCode.PACKET_TOO_LARGE,
        CloseCode.CODEC_REFUSED,
        CloseCode.PROTOCOL_VERSION,
    }
)


class SessionError(Exception):
    """The session cannot go on; close the connection with `code` and `reason`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def close_reason(reason: str) -> bytes:
    """The reason as a close frame carries it: UTF-8, cut to 123 bytes (RFC 6455, 5.5)."""
    return reason.encode()[:123].decode(errors="ignore").encode()


# --- camera ---


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
    reason: Literal["corrupt", "missing_reference", "error"]
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


# --- detector ---


def check_hello(hello: Hello, weights: str, splits: frozenset[str], model: str) -> None:
    """Compare network and split point.

    `weights` is the SHA-256 of the detector's own weights, `splits` the split points it accepts, `model` its
    network's name for the message. Raises SessionError with the close code and a reason a person understands.
    """
    if hello.protocol != PROTOCOL_VERSION:
        raise SessionError(
            CloseCode.PROTOCOL_VERSION,
            f"camera speaks protocol {hello.protocol}, detector {PROTOCOL_VERSION}: update the older one",
        )
    if hello.weights != weights:
        raise SessionError(
            CloseCode.WEIGHTS_DIFFER,
            f"weights differ: camera {hello.model} {hello.weights[:12]}, detector {model} {weights[:12]}; "
            "start both with the same file",
        )
    if hello.split not in splits:
        allowed = next(iter(splits)) if len(splits) == 1 else "see 'splitcast points'"
        raise SessionError(
            CloseCode.SPLIT_UNKNOWN, f"detector does not split at {hello.split!r}; allowed: {allowed}"
        )


def check_codec(hello: Hello, profiles: Mapping[str, Profile]) -> CodecSpec:
    """The codec that the camera announces.

    Raises UnknownProfile where it names a calibration profile that `profiles` lacks, else SessionError.
    """
    try:
        spec = CodecSpec.parse(hello.codec, profiles)
    except UnknownProfile as unknown:
        if _SHA256.fullmatch(unknown.hash):
            raise
        reason = f"{unknown.hash[:80]!r} is no calibration profile's SHA-256"
        raise SessionError(CloseCode.CODEC_REFUSED, reason) from None
    except BadCodecSpec as error:
        raise SessionError(CloseCode.CODEC_REFUSED, str(error)) from None
    if getattr(spec.codec, "profile", None) == "auto":
        raise SessionError(
            CloseCode.CODEC_REFUSED, "the codec leaves its calibration profile open: name its SHA-256"
        )
    return spec


def check_layout(hello: Hello, layout: Layout) -> None:
    """Compare the announced tensors with the cut's own `layout`. Raises SessionError where they differ."""
    try:
        announced = tuple(TensorSpec(tensor.name, tuple(tensor.shape)) for tensor in hello.tensors)
    except BadLayout as error:
        raise SessionError(CloseCode.SHAPES_DIFFER, str(error)) from None
    if announced != layout:
        raise SessionError(
            CloseCode.SHAPES_DIFFER,
            f"tensors differ: camera {_describe(announced)}, detector {_describe(layout)}",
        )


def tensor_shapes(layout: Layout) -> list[TensorShape]:
    """A layout as the hello announces it."""
    return [TensorShape(name=tensor.name, shape=list(tensor.shape)) for tensor in layout]


def _describe(layout: Layout) -> str:
    return ", ".join(f"{tensor.name} {'x'.join(map(str, tensor.shape))}" for tensor in layout[:4])


class DetectorSession:
    """Detector's end: one hello, then packets within the window, each answered once in order."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._max_packet_bytes = 0  # no packet before the welcome
        self._unanswered = 0
        self._keyframe_requested = False
        self._profile: str | None = None  # asked for, and not yet received
        self._previews_until_ns = 0  # when those that have come are used up, at one an interval
        self.hello: Hello | None = None

    def receive_text(self, text: str) -> Hello | Report | Preview:
        """What the camera says. Raises SessionError where it breaks the protocol."""
        try:
            message = parse_to_detector(text)
        except InvalidMessage as error:
            raise SessionError(CloseCode.BAD_MESSAGE, f"not a message of this protocol: {error}") from None
        if isinstance(message, Hello):
            if self.hello is not None:
                raise SessionError(CloseCode.BAD_MESSAGE, "a second hello")
            self.hello = message
        elif self.hello is None:
            raise SessionError(CloseCode.BAD_MESSAGE, f"{message.type} before the hello")
        elif isinstance(message, Preview) and not self.hello.preview:
            raise SessionError(CloseCode.BAD_MESSAGE, "a preview, which the hello did not announce")
        return message

    def receive_preview(self, now_ns: int) -> None:
        """Book a preview that came at `now_ns`. Raises SessionError if they come too fast."""
        self._previews_until_ns = max(self._previews_until_ns, now_ns) + PREVIEW_INTERVAL_NS
        if self._previews_until_ns > now_ns + PREVIEW_BURST * PREVIEW_INTERVAL_NS:
            raise SessionError(
                CloseCode.BAD_MESSAGE, f"more than {10**9 // PREVIEW_INTERVAL_NS} previews a second"
            )

    def request_profile(self, profile_hash: str) -> str:
        """Ask for the calibration profile that the hello names; the next message has to be that."""
        assert self.hello is not None
        self._profile = profile_hash
        return ProfileRequest(hash=profile_hash).text()

    def receive_profile(self, data: bytes, max_bytes: int) -> Profile:
        """The profile that was asked for. Raises SessionError where it is not that one.

        Hashes and parses all of it, which is work for a thread.
        """
        assert self._profile is not None
        wanted, self._profile = self._profile, None
        if len(data) > max_bytes:
            raise SessionError(
                CloseCode.PROFILE_REFUSED,
                f"the calibration profile has {len(data)} bytes; allowed: {max_bytes} (--max-profile-mib)",
            )
        if hashlib.sha256(data).hexdigest() != wanted:
            raise SessionError(
                CloseCode.PROFILE_REFUSED,
                f"what came is not calibration profile {wanted[:12]}, which was asked for",
            )
        try:
            return Profile.parse(data)
        except ProfileError as error:
            raise SessionError(
                CloseCode.PROFILE_REFUSED, f"calibration profile {wanted[:12]}: {error}"
            ) from None

    def welcome(self, max_packet_bytes: int, software: str) -> str:
        """Accept the hello; packets of at most `max_packet_bytes` may follow."""
        assert self.hello is not None
        self._max_packet_bytes = max_packet_bytes
        return Welcome(window=self._window, max_packet_bytes=max_packet_bytes, software=software).text()

    def receive_packet(self, size: int) -> None:
        """Book a packet of `size` bytes. Raises SessionError if the camera may not send it."""
        if not self._max_packet_bytes:
            raise SessionError(CloseCode.BAD_MESSAGE, "packet before the welcome")
        if size > self._max_packet_bytes:
            raise SessionError(
                CloseCode.PACKET_TOO_LARGE, f"packet of {size} bytes, at most {self._max_packet_bytes} agreed"
            )
        if self._unanswered == self._window:
            raise SessionError(CloseCode.WINDOW_EXCEEDED, f"more than {self._window} unacknowledged packets")
        self._unanswered += 1

    def acknowledge(self, sequence: int, captured_ns: int, detections: int, stages_ns: dict[str, int]) -> str:
        """Answer the oldest packet: detected on."""
        self._answer()
        self._keyframe_requested = False
        return Ack(
            sequence=sequence, captured_ns=captured_ns, detections=detections, stages_ns=stages_ns
        ).text()

    def reject(
        self, reason: Literal["corrupt", "missing_reference", "error"], detail: str, *, need_keyframe: bool
    ) -> list[str]:
        """Answer the oldest packet: no detections, and ask once for a keyframe if the reference is gone."""
        self._answer()
        texts = [Reject(reason=reason, detail=detail[:256]).text()]
        if need_keyframe and not self._keyframe_requested:
            self._keyframe_requested = True
            texts.append(KeyframeRequest().text())
        return texts

    def _answer(self) -> None:
        assert self._unanswered
        self._unanswered -= 1
