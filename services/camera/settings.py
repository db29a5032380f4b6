"""Settings of `splitcast camera`."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from codec.feature.codec import Feature
from codec.spec import Codec, parse_codec
from services.listening import check_address, is_loopback
from services.recording.limits import DEFAULT_MIB, RecordingLimits
from services.settings import (
    DEFAULT_CODEC,
    DEFAULT_PORT,
    ClientSettings,
    CodecText,
    Count,
    PathSetting,
    PathText,
    Port,
    Seconds,
    ServiceSettings,
    SizeText,
    require_certificate,
    websocket_url,
)
from stream.late_name import MAX_CHARACTERS, SUFFIX, is_late
from stream.network.names import DEFAULT_SPLIT
from stream.session.messages import StreamName

if TYPE_CHECKING:
    from stream.transport.tls import ServerTls


class SourceSettings(ServiceSettings):
    """What makes packets of pictures, of all that a camera is told."""

    source: PathText = Field(
        min_length=1,
        description="0 or /dev/... (webcam), rtsp://..., a video file, a folder of images, or demo (a virtual camera)",
    )
    stream: StreamName = Field(
        default_factory=lambda: socket.gethostname() or "camera",
        description="name under which detections are published (default: host name)",
    )
    split: str = Field(DEFAULT_SPLIT, description="split point; 'splitcast points' lists them")
    size: SizeText = Field(
        "640",
        description="network input: longer side, or HEIGHTxWIDTH; multiples of the network's stride, 32 (P6: 64)",
    )
    codec: CodecText = Field(DEFAULT_CODEC, description="codec and its parameters")
    profile: PathSetting | None = Field(
        None, description="file of a calibration profile for --codec feature (default: the bundled one)"
    )
    effort: Annotated[int, Field(ge=0, le=3)] | None = Field(
        None, description="0 to 3: how hard --codec feature searches for motion (default: the codec's)"
    )
    realtime: bool = Field(False, description="play a file at its own frame rate, as a live source")
    loop: bool = Field(False, description="start a file again at its end")
    frames: Count | None = Field(None, description="stop after so many frames (default: never)")
    rtsp_transport: Literal["tcp", "udp"] = Field("tcp", description="how RTSP carries video: tcp or udp")
    open_timeout_s: Seconds = Field(5.0, description="seconds that opening a live source may take")
    read_timeout_s: Seconds = Field(
        3.0,
        description="seconds that a live source may be silent, or ten periods of its frame rate if longer",
    )
    record_mib: Annotated[float, Field(ge=1, le=2**30)] = Field(
        DEFAULT_MIB,
        title="MIB",
        description="most that the stream's recording may take; the oldest is deleted",
    )
    record_segment_mib: Annotated[float, Field(gt=0, le=2**20)] | None = Field(
        None,
        title="MIB",
        description="size of a file of the recording (default: a quarter of --record-mib, at most 64)",
    )
    record_segment_s: Seconds = Field(
        600.0, description="seconds after which a recording goes on in a new file"
    )

    @property
    def parsed_codec(self) -> Codec:
        """The codec with all that other settings say of it; its profile still to be found."""
        codec = parse_codec(self.codec)
        if isinstance(codec, Feature) and self.effort is not None:
            return replace(codec, effort=self.effort)
        return codec

    @property
    def recording_limits(self) -> RecordingLimits:
        """How much of the stream is kept."""
        return RecordingLimits.of(self.record_mib, self.record_segment_mib, self.record_segment_s)

    @model_validator(mode="after")
    def _check_recording(self) -> Self:
        _ = self.recording_limits
        return self

    @model_validator(mode="after")
    def _check_stream(self) -> Self:
        if is_late(self.stream):
            raise ValueError(f"--stream: names that end with {SUFFIX} are those of streams that come late")
        return self

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        codec = parse_codec(self.codec)
        _refuse_unserved(self, "effort", isinstance(codec, Feature), "searches for no motion")
        _refuse_unserved(self, "profile", codec.takes_profile, "takes no calibration profile")
        return self


@dataclass(frozen=True, slots=True)
class LocalFallback:
    """How a camera finishes the network itself, and what it keeps."""

    after_s: float = 5.0
    keep: int = 36_000  # messages: an hour of ten a second
    keep_mib: float = 16.0
    confidence: float = 0.25
    iou: float = 0.45
    max_detections: int = 300


class CameraSettings(ClientSettings, SourceSettings):
    """Settings of `splitcast camera`."""

    table: ClassVar[str] = "camera"

    detector: Annotated[str, AfterValidator(websocket_url)] = Field(
        f"ws://127.0.0.1:{DEFAULT_PORT}", description="address of the detector"
    )
    target_kbps: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None,
        description="kbit/s that packets may take on average: coarsens the quantizer step, then drops frames "
        "(default: no limit)",
    )
    max_latency_ms: Annotated[float, Field(gt=0, le=60_000)] | None = Field(
        None,
        description="milliseconds from capture to acknowledgement that the step is chosen for (default: no limit)",
    )
    window: Annotated[int, Field(ge=1, le=1024)] = Field(3, description="most unanswered frames")
    preview: bool = Field(
        False,
        description="PIXELS LEAVE THE CAMERA: about once a second send the detector a small picture, for its page",
    )
    silence_s: Seconds = Field(
        3.0, description="seconds without a byte from the detector after which it counts as lost"
    )
    metrics: Literal["brief", "full"] = Field(
        "brief",
        description="what /metrics tells: brief: some thirty series, for many cameras; full: histograms, and every "
        "reason from the start at zero",
    )
    record: PathSetting | None = Field(
        None,
        title="DIR",
        description="folder to keep what is sent in, for `splitcast replay` (default: nothing is)",
    )
    record_when: Literal["always", "disconnected"] = Field(
        "always",
        description="what --record keeps: always: what is sent; disconnected: what an outage of the detector would "
        "lose, which is sent afterwards, late",
    )
    fallback: Literal["local"] | None = Field(
        None,
        description="local: finish the network on this camera while its detector is away, and serve detections beside "
        "/metrics (default: frames are lost)",
    )
    fallback_after_s: Seconds | None = Field(
        None, description="seconds without a detector after which that begins (default: 5)"
    )
    fallback_keep: Annotated[int, Field(ge=1, le=10**7)] | None = Field(
        None, description="most messages of detections that are kept for later (default: 36000)"
    )
    fallback_keep_mib: Annotated[float, Field(gt=0, le=2**20)] | None = Field(
        None, description="most MiB that they may take (default: 16)"
    )
    fallback_confidence: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="least confidence of a detection on this camera (default: 0.25, as a detector's)"
    )
    fallback_iou: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="overlap above which NMS drops a box on this camera (default: 0.45, as a detector's)",
    )
    fallback_max_detections: Annotated[int, Field(ge=1, le=10000)] | None = Field(
        None, description="most detections a frame on this camera (default: 300, as a detector's)"
    )
    metrics_host: str = Field("127.0.0.1", description="address that /metrics listens on")
    metrics_port: Port = Field(8766, description="port of /metrics; 0: none")
    metrics_tls_cert: PathSetting | None = Field(
        None,
        description="PEM file of the certificate that makes /metrics https://; read anew when it changes",
    )
    metrics_tls_key: PathSetting | None = Field(
        None, description="PEM file of its key (default: in the certificate's)"
    )
    metrics_tls_client_ca: PathSetting | None = Field(
        None, description="PEM file of who signs the certificates that scrapers must then show"
    )

    @property
    def local_fallback(self) -> LocalFallback | None:
        """What the camera does without a detector; None: it loses the frames."""
        if self.fallback is None:
            return None
        own = {name.removeprefix("fallback_"): getattr(self, name) for name in _FALLBACK}
        return LocalFallback(**{name: value for name, value in own.items() if value is not None})

    @property
    def metrics_tls(self) -> ServerTls | None:
        """Who serves /metrics; None without TLS."""
        from stream.transport.tls import ServerTls

        cert, key, client_ca = self.metrics_tls_cert, self.metrics_tls_key, self.metrics_tls_client_ca
        return ServerTls(cert, key, client_ca, flags="--metrics-tls-") if cert else None

    def check_machine(self) -> None:
        from services.certificates import check_files, client_tls
        from services.own_token import token_headers

        if self.metrics_port:
            check_address(self.metrics_host, self.metrics_port, "--metrics-")
        check_files(self.metrics_tls)
        check_files(client_tls(self))
        token_headers(self)

    @model_validator(mode="after")
    def _check_token(self) -> Self:
        self.check_way(self.detector)
        return self

    @model_validator(mode="after")
    def _check_record_when(self) -> Self:
        if self.record_when == "disconnected":
            if self.record is None:
                raise ValueError(
                    "--record-when disconnected: name the folder to keep packets in with --record"
                )
            if len(self.stream) > MAX_CHARACTERS:
                raise ValueError(
                    f"--stream: {len(self.stream)} characters; with --record-when disconnected at most "
                    f"{MAX_CHARACTERS}, for its packets come late as stream NAME{SUFFIX}"
                )
        return self

    @model_validator(mode="after")
    def _check_metrics_tls(self) -> Self:
        require_certificate(self, "metrics_")
        return self

    @model_validator(mode="after")
    def _check_fallback(self) -> Self:
        if self.fallback is None:
            for name in _FALLBACK:
                if getattr(self, name) is not None:
                    raise ValueError(f"--{name.replace('_', '-')}: is of no use without --fallback local")
        elif self.metrics_port and not (
            is_loopback(self.metrics_host) or self.metrics_tls_client_ca or self.insecure
        ):
            raise ValueError(
                f"--fallback: whoever reaches {self.metrics_host}:{self.metrics_port} could read what this camera "
                "sees: listen on 127.0.0.1 (--metrics-host), ask for certificates (--metrics-tls-cert, "
                "--metrics-tls-client-ca), or say --insecure where the network keeps strangers out"
            )
        return self

    @model_validator(mode="after")
    def _check_rate(self) -> Self:
        steps = parse_codec(self.codec).step_range is not None
        for name in ("target_kbps", "max_latency_ms"):
            _refuse_unserved(self, name, steps, "has no quantizer step to choose")
        return self


_FALLBACK = tuple(name for name in CameraSettings.model_fields if name.startswith("fallback_"))


def _refuse_unserved(settings: SourceSettings, name: str, served: bool, lack: str) -> None:
    """Raises ValueError where something is set that the codec does nothing with."""
    if getattr(settings, name) is not None and not served:
        flag = name.replace("_", "-")
        raise ValueError(f"--{flag}: {settings.codec} {lack}; take --codec feature")
