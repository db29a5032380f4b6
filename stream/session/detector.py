"""The detector's end of the session, as a state machine without I/O: texts and packets in, texts out.

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
from stream.session.close_codes import CloseCode
from stream.session.messages import (
    PROTOCOL_VERSION,
    Ack,
    Hello,
    KeyframeRequest,
    Preview,
    ProfileRequest,
    Reject,
    RejectReason,
    ToDetector,
    Waiting,
    Welcome,
    parse_to_detector,
)

_SHA256 = re.compile("[0-9a-f]{64}")

# A camera sends about one preview a second; what a stalled link gathers may come at once.
PREVIEW_INTERVAL_NS = 250_000_000
PREVIEW_BURST = 16


def check_hello(hello: Hello, weights: str, splits: frozenset[str], model: str) -> None:
    """Compare protocol, network and split point.

    `weights` is the SHA-256 of the detector's own weights, `splits` the split points that it accepts, `model` its
    network's name for the message. Raises SessionError, with the close code and a reason a person understands.
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
    """Detector's end: one hello, then at most `window` packets without answer, each answered once and in order."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._max_packet_bytes = 0  # no packet before the welcome
        self._unanswered = 0
        self._keyframe_requested = False
        self._requested_profile: str | None = None  # SHA-256 of the one not yet received
        self._previews_until_ns = 0  # a leaky bucket: when it is empty again, at one preview an interval
        self.hello: Hello | None = None

    def receive_text(self, text: str) -> ToDetector:
        """The message in a text of the camera. Raises SessionError where it breaks the protocol."""
        try:
            message = parse_to_detector(text)
        except InvalidMessage as error:
            raise SessionError(CloseCode.BAD_MESSAGE, f"not a message of this protocol: {error}") from None
        if isinstance(message, Hello):
            if self.hello is not None:
                raise SessionError(CloseCode.BAD_MESSAGE, "a second hello")
            self.hello = message
        elif isinstance(message, Waiting):
            if self.hello is not None:
                raise SessionError(CloseCode.BAD_MESSAGE, "waiting, after the hello")
        elif self.hello is None:
            raise SessionError(CloseCode.BAD_MESSAGE, f"{message.type} before the hello")
        elif isinstance(message, Preview) and not self.hello.preview:
            raise SessionError(CloseCode.BAD_MESSAGE, "a preview, which the hello did not announce")
        return message

    def receive_preview(self, now_ns: int) -> None:
        """Count a preview that came at `now_ns`, on any steady clock. Raises SessionError if they come too fast."""
        self._previews_until_ns = max(self._previews_until_ns, now_ns) + PREVIEW_INTERVAL_NS
        if self._previews_until_ns > now_ns + PREVIEW_BURST * PREVIEW_INTERVAL_NS:
            raise SessionError(
                CloseCode.BAD_MESSAGE, f"more than {10**9 // PREVIEW_INTERVAL_NS} previews a second"
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

    def welcome(self, max_packet_bytes: int, software: str) -> str:
        """Text that accepts the hello; packets of at most `max_packet_bytes` may follow."""
        assert self.hello is not None
        self._max_packet_bytes = max_packet_bytes
        return Welcome(window=self._window, max_packet_bytes=max_packet_bytes, software=software).text()

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

    def acknowledge(self, sequence: int, captured_ns: int, detections: int, stages_ns: dict[str, int]) -> str:
        """Text that answers the oldest packet: it gave so many detections; `stages_ns` are durations by stage."""
        self._answer()
        self._keyframe_requested = False
        return Ack(
            sequence=sequence, captured_ns=captured_ns, detections=detections, stages_ns=stages_ns
        ).text()

    def reject(self, reason: RejectReason, detail: str, *, need_keyframe: bool) -> list[str]:
        """Texts that answer the oldest packet, with no detections, and ask once for a keyframe if one is needed.

        To a camera that does not know the reason the packet is corrupt.
        """
        self._answer()
        assert self.hello is not None
        if reason not in self.hello.reject_reasons:
            reason = "corrupt"
        texts = [Reject(reason=reason, detail=detail[:256]).text()]
        if need_keyframe and not self._keyframe_requested:
            self._keyframe_requested = True
            texts.append(KeyframeRequest().text())
        return texts

    def _answer(self) -> None:
        assert self._unanswered
        self._unanswered -= 1
