"""The JSON texts that camera and detector exchange beside packets and acks; docs/protocol.md is normative."""

from __future__ import annotations

from base64 import b64encode
from binascii import Error as BadBase64
from binascii import a2b_base64
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from stream.errors import InvalidMessage
from stream.session.preview import check_preview

PROTOCOL_VERSION = 2
FEATURES_PROTOCOL = "splitcast.features.v1"
DETECTIONS_PROTOCOL = "splitcast.detections.v1"
MAX_TEXT_CHARACTERS = 64 * 1024  # a hello of 255 tensors takes 30 k; parsing takes many times a text's size

StreamName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
Nanoseconds: TypeAlias = Annotated[int, Field(ge=0, lt=2**64)]


RejectReason: TypeAlias = Literal[
    "corrupt", "missing_reference", "reference_mismatch", "lost", "error", "stale"
]
"""Why a packet yields no detections.

corrupt: the bytes are no packet of this codec. missing_reference: a difference from a frame that the detector does
not hold. reference_mismatch: a difference from another frame than the one it holds. lost: what decoded the stream is
gone, with the packet and the frames before it. error: the detector failed.
stale: the frame is too old, or a newer one of the same live camera has come while it waited.
"""
REJECT_REASONS: tuple[RejectReason, ...] = get_args(RejectReason)
LOST_REFERENCE: frozenset[RejectReason] = frozenset(
    {"corrupt", "missing_reference", "reference_mismatch", "lost"}
)
"""Rejects by which a detector says that it holds no reference any more."""
# What a camera understands whose hello does not tell; it leaves a detector that says anything else.
FIRST_REJECT_REASONS = ("corrupt", "missing_reference", "error")


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    def text(self) -> str:
        """The message as it goes on the wire."""
        return self.model_dump_json()


CountByName: TypeAlias = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Count], Field(max_length=32)
]


class TensorShape(_Message):
    """Name and shape of one tensor that crosses the split, without the batch axis."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    shape: Annotated[list[Annotated[int, Field(ge=1, le=65535)]], Field(min_length=1, max_length=8)]


class Clock(_Message):
    """The same instant on two clocks, so that `captured_ns` can be told as a time of day."""

    monotonic_ns: Nanoseconds
    unix_ns: Nanoseconds


# Random, and known to nobody but one camera process: whoever has it may take over that camera's stream.
SessionSecret: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
SourceState: TypeAlias = Literal["opening", "open", "frozen", "lost"]
SOURCE_STATES: tuple[SourceState, ...] = get_args(SourceState)


class Waiting(_Message):
    """A camera is there, but has no picture yet: what comes before the hello, about once a second until then."""

    type: Literal["waiting"] = "waiting"
    protocol: int = PROTOCOL_VERSION
    stream: StreamName
    session: SessionSecret = Field(repr=False)
    source: Annotated[str, StringConstraints(max_length=1024)]
    source_state: SourceState
    reason: Annotated[str, StringConstraints(max_length=256)] = ""  # why the source was lost last, for people
    software: Annotated[str, StringConstraints(max_length=64)] = ""


class Hello(_Message):
    """What a camera is going to send, and with which network and codec.

    As a trial it only asks whether it would be welcome, and measures the way: it takes no stream's name, and what comes
    after it is answered and thrown away.
    """

    type: Literal["hello", "trial"] = "hello"
    protocol: int = PROTOCOL_VERSION
    stream: StreamName
    model: Annotated[str, StringConstraints(max_length=256)]  # for people; the weights hash decides
    weights: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    split: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    canvas: tuple[Annotated[int, Field(ge=32, le=65535)], Annotated[int, Field(ge=32, le=65535)]]  # (H, W)
    tensors: Annotated[list[TensorShape], Field(min_length=1, max_length=255)]
    codec: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    clock: Clock
    software: Annotated[str, StringConstraints(max_length=64)] = ""
    preview: bool = False  # previews will come: pixels leave the camera
    reject_reasons: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=64)], ...], Field(max_length=32)
    ] = FIRST_REJECT_REASONS  # that the camera understands
    # None: a camera that knows neither `retry` nor `window`, and cannot take its stream back.
    session: SessionSecret | None = Field(None, repr=False)
    step_map_bytes: Annotated[int, Field(ge=0, le=2**20)] = (
        0  # size of the step maps that the camera takes; 0: none
    )
    live: bool = False  # the newest frame counts: those that are late may be answered `stale`
    late: bool = (
        False  # packets of an outage, sent afterwards: the stream is named as stream.late_name has it
    )
    frame: Count = 0  # number of the connection's first frame, over the life of the camera process
    welcomes: Count | None = (
        None  # that the camera process had before, of any detector; None: it does not tell
    )


class StageReport(_Message):
    """Latency of one stage over the frames of a report, in milliseconds."""

    mean_ms: float
    p95_ms: float


class RateReport(_Message):
    """What rate control does, and what it knows of the link."""

    step: int | None = None  # of the last frame; None where the codec has none
    reason: Annotated[str, StringConstraints(max_length=64)] | None = None  # what chose it
    target_kbps: Annotated[float, Field(gt=0)] | None = None
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    link_kbps: Annotated[float, Field(ge=0)]
    queue_ms: Annotated[float, Field(ge=0)]


LOCAL = "local"  # of a gap's reasons: detected on the camera
RECORDED = "recorded"  # kept by the camera


class Report(_Message):
    """Camera's own account, about once a second: what the detector cannot see.

    What a report leaves out is as in the one before on the connection; in the first it is as here.
    """

    type: Literal["report"] = "report"
    captured: Count
    detected: Count
    in_flight: Count
    dropped: CountByName = {}  # "stage/reason"
    reconnects: CountByName = {}  # "source", "detector"
    source: Annotated[str, StringConstraints(max_length=1024)] = ""
    source_state: SourceState = "open"
    keyframes: CountByName = {}
    latency: StageReport | None = None
    latency_sum_ms: Annotated[float, Field(ge=0)] | None = None  # of all frames detected
    stages: Annotated[
        dict[Annotated[str, StringConstraints(max_length=64)], StageReport], Field(max_length=32)
    ] = {}
    rate: RateReport | None = None
    jpeg_bytes: Count | None = None  # size of a frame's canvas as JPEG, which is never sent
    clock: Clock | None = None  # as in the hello, now: the time of day may have been set since
    frames_repeated: Count = 0  # pictures that were identical to the one before
    decode_errors: Count = 0  # of the source's video
    detected_locally: Count = 0  # by the camera itself, while it had no detector
    recorded: Count = 0  # while it had no detector

    @property
    def done(self) -> int:
        """Frames with an outcome."""
        return self.detected + sum(self.dropped.values()) + sum(self.kept.values())

    @property
    def kept(self) -> dict[str, int]:
        """Frames of which a camera without a detector has made something, by what, as gaps name it."""
        kept = {LOCAL: self.detected_locally, RECORDED: self.recorded}
        return {name: count for name, count in kept.items() if count}

    def text_after(self, told: Report) -> str:
        """The message as it goes on the wire where `told` is what the detector knows: what is new."""
        fields = set(type(self).model_fields) - _ALWAYS_REPORTED
        return self.model_dump_json(
            exclude={name for name in fields if getattr(self, name) == getattr(told, name)}
        )

    def after(self, told: Report | None) -> Report:
        """All that is known of the camera, where `told` is what was known before."""
        if told is None:
            return self
        return told.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


_ALWAYS_REPORTED = {"type", "captured", "detected", "in_flight"}


def _from_base64(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return a2b_base64(value, strict_mode=True)
    except (BadBase64, ValueError) as error:  # ValueError: beyond ASCII
        raise ValueError(f"not base64: {error}") from None


class Preview(_Message):
    """A small picture of a frame that was sent, at most about once a second."""

    type: Literal["preview"] = "preview"
    jpeg: Annotated[
        bytes,
        BeforeValidator(_from_base64),
        AfterValidator(check_preview),
        PlainSerializer(lambda jpeg: b64encode(jpeg).decode(), return_type=str),
    ]


class Welcome(_Message):
    """Detector accepts; the camera may have `window` unanswered packets of at most `max_packet_bytes`.

    `frames_per_s` is what its token allows; None: any.
    """

    type: Literal["welcome"] = "welcome"
    window: Annotated[int, Field(ge=1, le=1024)]
    max_packet_bytes: Annotated[int, Field(ge=1)]
    frames_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    software: str = ""


class ProfileRequest(_Message):
    """The detector lacks the calibration profile that the hello's codec names: send it, as one binary message."""

    type: Literal["profile_request"] = "profile_request"
    hash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Reject(_Message):
    """The oldest unanswered packet yielded no detections."""

    type: Literal["reject"] = "reject"
    reason: RejectReason
    detail: str = ""


class Retry(_Message):
    """The detector is about to close the connection, for a while: when the camera should come back."""

    type: Literal["retry"] = "retry"
    after_s: Annotated[float, Field(ge=0, le=60)]


class Window(_Message):
    """From now on at most so many unanswered packets, and never more than the welcome offered."""

    type: Literal["window"] = "window"
    window: Annotated[int, Field(ge=1, le=1024)]


class KeyframeRequest(_Message):
    """The detector holds no reference: the next packet has to be a keyframe."""

    type: Literal["keyframe"] = "keyframe"


ToDetector: TypeAlias = Waiting | Hello | Report | Preview
ToCamera: TypeAlias = Welcome | ProfileRequest | Reject | KeyframeRequest | Retry | Window
_TO_DETECTOR: TypeAdapter[ToDetector] = TypeAdapter(Annotated[ToDetector, Field(discriminator="type")])
_TO_CAMERA: TypeAdapter[ToCamera] = TypeAdapter(Annotated[ToCamera, Field(discriminator="type")])


def _check_length(text: str) -> None:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidMessage(f"a text of {len(text)} characters; at most {MAX_TEXT_CHARACTERS}")


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "message"
    return f"{place}: {first['msg'].removeprefix('Value error, ')}"


def parse_to_detector(text: str) -> ToDetector:
    """A camera's message. Raises InvalidMessage, which names the field at fault."""
    _check_length(text)
    try:
        return _TO_DETECTOR.validate_json(text)
    except ValidationError as error:
        raise InvalidMessage(_describe(error)) from None


def parse_to_camera(text: str) -> ToCamera:
    """A detector's message. Raises InvalidMessage, which names the field at fault."""
    _check_length(text)
    try:
        return _TO_CAMERA.validate_json(text)
    except ValidationError as error:
        raise InvalidMessage(_describe(error)) from None
