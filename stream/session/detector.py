"""The detector's end of the session, as a state machine without I/O: texts and packets in, messages out.

No socket, no clock, no task. docs/protocol.md describes the protocol.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from codec.errors import BadCodecSpec, BadLayout, ProfileError, UnknownProfile
from codec.feature.profile import Profile
from codec.layout import Layout, TensorSpec
from codec.spec import Codec, parse_codec
from stream.errors import InvalidMessage, SessionError
from stream.late_name import SUFFIX, camera_name, is_late
from stream.leaky_bucket import LeakyBucket
from stream.session.ack import Ack
from stream.session.close_codes import CloseCode
from stream.session.messages import (
    PROTOCOL_VERSION,
    Hello,
    KeyframeRequest,
    Preview,
    ProfileRequest,
    Reject,
    RejectReason,
    Report,
    Retry,
    ToDetector,
    Waiting,
    Welcome,
    Window,
    parse_to_detector,
)
from stream.session.step_map import StepMap

_SHA256 = re.compile("[0-9a-f]{64}")

# A keyframe that was asked for is on its way for a round trip: differences that come before it are no news.
KEYFRAME_PATIENCE_NS = 500_000_000
# Rejects after which the decoder holds no reference that the camera's next frame could refer to.
UNDECODABLE = frozenset({"corrupt", "missing_reference", "reference_mismatch", "lost"})

# A camera sends about one preview a second; what a stalled link gathers may come at once.
PREVIEW_INTERVAL_NS = 250_000_000
PREVIEW_BURST = 16
# It reports, or says that it waits, once a second; each may be news to every consumer.
REPORT_INTERVAL_NS = 250_000_000
REPORT_BURST = 64


def check_hello(hello: Hello, weights: str, splits: frozenset[str], model: str) -> None:
    """Compare protocol, network and split point.

    `weights` is the SHA-256 of the detector's own weights, `splits` the split points that it accepts, `model` its
    network's name for the message. Raises SessionError, with the close code and a reason a person understands.
    """
    check_version(hello)
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


def check_version(message: Hello | Waiting) -> None:
    """Raise SessionError where the camera speaks another version of this protocol."""
    if message.protocol != PROTOCOL_VERSION:
        raise SessionError(
            CloseCode.PROTOCOL_VERSION,
            f"camera speaks protocol {message.protocol}, detector {PROTOCOL_VERSION}: update the older one",
        )


def check_name(message: Hello | Waiting) -> None:
    """Raise SessionError where the name says that the stream comes late and the camera does not, or the reverse."""
    late = isinstance(message, Hello) and message.late
    if late != is_late(message.stream):
        raise SessionError(
            CloseCode.BAD_MESSAGE,
            f"stream {message.stream!r}: names that end with {SUFFIX} are those of streams that come late alone",
        )


def check_address(message: Hello | Waiting, addressed: str | None) -> None:
    """Raise SessionError where the connection's address names another stream than the camera; None: it names none.

    What balances connections over detectors goes by the address: such a stream would be where nobody looks for it.
    A late stream goes by its camera's name, and so to the detector that has the camera.
    """
    if addressed is not None and addressed != camera_name(message.stream):
        raise SessionError(
            CloseCode.STREAM_DIFFERS,
            f"the camera says stream {message.stream!r}, the address it came by {addressed[:64]!r}: they must agree",
        )


def check_codec(hello: Hello, profiles: Mapping[str, Profile]) -> Codec:
    """The codec that the camera announces, with its calibration profile from `profiles`, which are by SHA-256.

    Raises UnknownProfile where only the profile is lacking, SessionError where the codec is none that can be used.
    """
    try:
        codec = parse_codec(hello.codec, profiles)
    except UnknownProfile as unknown:
        if _SHA256.fullmatch(unknown.hash):
            raise
        reason = f"{unknown.hash[:80]!r} is no calibration profile's SHA-256"
        raise SessionError(CloseCode.CODEC_REFUSED, reason) from None
    except BadCodecSpec as error:
        raise SessionError(CloseCode.CODEC_REFUSED, str(error)) from None
    if codec.profile_is_open:
        raise SessionError(
            CloseCode.CODEC_REFUSED, "the codec leaves its calibration profile open: name its SHA-256"
        )
    return codec


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


def _describe(layout: Layout) -> str:
    """The first tensors, as much as a close reason has room for."""
    return ", ".join(f"{tensor.name} {'x'.join(map(str, tensor.shape))}" for tensor in layout[:4])


class DetectorSession:
    """Detector's end: one hello, then at most `window` packets without answer, each answered once and in order.

    A camera without a picture says that it is waiting, as often as it likes, before its hello.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._max_packet_bytes = 0  # no packet before the welcome
        self._unanswered = 0
        self._keyframe_requested_ns: int | None = None  # None: a reference is held
        self._requested_profile: str | None = None  # SHA-256 of the one not yet received
        self._previews = LeakyBucket(PREVIEW_INTERVAL_NS, PREVIEW_BURST)
        self._reports = LeakyBucket(REPORT_INTERVAL_NS, REPORT_BURST)
        self._report: Report | None = None  # all that was told by the last one
        self.hello: Hello | None = None
        self.waiting: Waiting | None = None  # what the camera said last before its hello

    @property
    def stream(self) -> str | None:
        """The name that the camera gave; None before it gave one."""
        named = self.hello or self.waiting
        return named.stream if named else None

    def receive_text(self, text: str) -> ToDetector:
        """The message in a text of the camera, a report with what it left out.

        Raises SessionError where it breaks the protocol.
        """
        try:
            message = parse_to_detector(text)
        except InvalidMessage as error:
            raise SessionError(CloseCode.BAD_MESSAGE, f"not a message of this protocol: {error}") from None
        if isinstance(message, Hello | Waiting):
            self._introduce(message)
        elif self.hello is None:
            raise SessionError(CloseCode.BAD_MESSAGE, f"{message.type} before the hello")
        elif isinstance(message, Preview) and not self.hello.preview:
            raise SessionError(CloseCode.BAD_MESSAGE, "a preview, which the hello did not announce")
        elif isinstance(message, Report):
            self._report = message = message.after(self._report)
        return message

    def _introduce(self, message: Hello | Waiting) -> None:
        if self.hello is not None:
            what = "a second hello" if isinstance(message, Hello) else "waiting, after the hello"
            raise SessionError(CloseCode.BAD_MESSAGE, what)
        first = self.waiting
        if first and (first.stream, first.session) != (message.stream, message.session):
            raise SessionError(
                CloseCode.BAD_MESSAGE, f"{message.type} of another camera than the one that waits"
            )
        if isinstance(message, Hello):
            self.hello = message
        else:
            self.waiting = message

    def receive_preview(self, now_ns: int) -> None:
        """Count a preview that came at `now_ns`, on any steady clock. Raises SessionError if they come too fast."""
        if not self._previews.take(now_ns):
            raise SessionError(
                CloseCode.BAD_MESSAGE, f"more than {10**9 // PREVIEW_INTERVAL_NS} previews a second"
            )

    def receive_report(self, now_ns: int) -> None:
        """Count a report, or a word of waiting, as `receive_preview` does."""
        if not self._reports.take(now_ns):
            raise SessionError(
                CloseCode.BAD_MESSAGE, f"more than {10**9 // REPORT_INTERVAL_NS} reports a second"
            )

    def request_profile(self, profile_hash: str) -> str:
        """Text that asks for the calibration profile that the hello names; the next message has to be that profile."""
        assert self.hello is not None
        self._requested_profile = profile_hash
        return ProfileRequest(hash=profile_hash).text()

    def receive_profile(self, data: bytes, max_bytes: int) -> Profile:
        """The profile that was requested, from its packed bytes. Raises SessionError where they are not that profile.

        Hashes and parses all of it, which is work for a thread.
        """
        assert self._requested_profile is not None
        profile_hash, self._requested_profile = self._requested_profile, None
        if len(data) > max_bytes:
            raise SessionError(
                CloseCode.PROFILE_REFUSED,
                f"the calibration profile has {len(data)} bytes; allowed: {max_bytes} (--max-profile-mib)",
            )
        if hashlib.sha256(data).hexdigest() != profile_hash:
            raise SessionError(
                CloseCode.PROFILE_REFUSED,
                f"what came is not calibration profile {profile_hash[:12]}, which was asked for",
            )
        try:
            return Profile.parse(data)
        except ProfileError as error:
            raise SessionError(
                CloseCode.PROFILE_REFUSED, f"calibration profile {profile_hash[:12]}: {error}"
            ) from None

    def welcome(self, max_packet_bytes: int, software: str, frames_per_s: float | None = None) -> str:
        """Text that accepts the hello; packets of at most `max_packet_bytes` may follow, so many a second."""
        assert self.hello is not None
        self._max_packet_bytes = max_packet_bytes
        return Welcome(
            window=self._window,
            max_packet_bytes=max_packet_bytes,
            frames_per_s=frames_per_s,
            software=software,
        ).text()

    def receive_packet(self, size: int) -> None:
        """Count a packet of `size` bytes. Raises SessionError if the camera may not send it."""
        if not self._max_packet_bytes:
            raise SessionError(CloseCode.BAD_MESSAGE, "packet before the welcome")
        if size > self._max_packet_bytes:
            raise SessionError(
                CloseCode.PACKET_TOO_LARGE, f"packet of {size} bytes, at most {self._max_packet_bytes} agreed"
            )
        if self._unanswered == self._window:
            raise SessionError(CloseCode.WINDOW_EXCEEDED, f"more than {self._window} unanswered packets")
        self._unanswered += 1

    def set_window(self, window: int) -> list[str]:
        """Text that allows so many unanswered packets from now on; none to a camera that does not know it.

        What is on its way was sent by the window before, so all that the welcome offered may still come.
        """
        return [Window(window=window).text()] if self._knows_more else []

    def retry(self, after_s: float) -> list[str]:
        """Text that says, before a close, when to come back; none to a camera that does not know it."""
        return [Retry(after_s=after_s).text()] if self._knows_more else []

    @property
    def _knows_more(self) -> bool:
        """Whether the camera knows what joined the protocol with `session`."""
        return self.waiting is not None or (self.hello is not None and self.hello.session is not None)

    def step_map(self, sequence: int, data: bytes) -> bytes:
        """Message with the step map of a packet that was detected on, to a camera that takes them."""
        assert self.hello is not None
        assert len(data) == self.hello.step_map_bytes
        return StepMap(sequence, data).pack()

    def acknowledge(self, sequence: int, detections: int, stages_ns: Mapping[str, int]) -> bytes:
        """Message that answers the oldest packet: it gave so many detections; `stages_ns` are durations by stage."""
        self._answer()
        self._keyframe_requested_ns = None
        return Ack(sequence, detections, stages_ns).pack()

    def reject(self, reason: RejectReason, detail: str, *, received_ns: int, now_ns: int) -> list[str]:
        """Texts that answer the oldest packet, with no detections, and ask for a keyframe where one is needed.

        `received_ns` is when that packet came, `now_ns` the time, both on one steady clock. A keyframe is needed once
        a packet could not be decoded, and asked for until one is: at once where what came after the last request is
        damaged, as it may have been that keyframe, and else when a keyframe could have come.

        To a camera that does not know the reason the packet is corrupt.
        """
        self._answer()
        assert self.hello is not None
        known = reason if reason in self.hello.reject_reasons else "corrupt"
        texts = [Reject(reason=known, detail=detail[:256]).text()]
        if reason not in UNDECODABLE:
            self._keyframe_requested_ns = None
        elif self._is_keyframe_due(reason, received_ns, now_ns):
            self._keyframe_requested_ns = now_ns
            texts.append(KeyframeRequest().text())
        return texts

    def _is_keyframe_due(self, reason: RejectReason, received_ns: int, now_ns: int) -> bool:
        requested_ns = self._keyframe_requested_ns
        if requested_ns is None or now_ns - requested_ns >= KEYFRAME_PATIENCE_NS:
            return True
        return reason in ("corrupt", "lost") and received_ns >= requested_ns

    def _answer(self) -> None:
        assert self._unanswered
        self._unanswered -= 1
