"""Settings of `splitcast detector`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from codec.feature.profile import MAX_PROFILE_BYTES
from services.listening import check_address, is_loopback
from services.settings import (
    DEFAULT_PORT,
    PathSetting,
    PathText,
    Port,
    Seconds,
    ServiceSettings,
    Threads,
    origins,
    require_certificate,
)

if TYPE_CHECKING:
    from stream.transport.tls import ServerTls


def some_tokens(text: str) -> str:
    if not text.strip():
        raise ValueError("names no file, and nobody would be asked: leave it out if that is meant")
    return text


class DetectorSettings(ServiceSettings):
    """Settings of `splitcast detector`."""

    table: ClassVar[str] = "detector"

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0: all")
    port: Port = Field(DEFAULT_PORT, description="port to listen on; 0: any free one")
    tls_cert: PathSetting | None = Field(
        None,
        description="PEM file of this detector's certificate, which makes the port wss:// and https://; read anew when "
        "it changes",
    )
    tls_key: PathSetting | None = Field(
        None, description="PEM file of its key (default: in the certificate's)"
    )
    tls_client_ca: PathSetting | None = Field(
        None, description="PEM file of who signs the certificates that clients must then show"
    )
    insecure: bool = Field(
        False,
        description="let other machines in without tokens, or tokens without TLS: the network keeps strangers out",
    )
    split: str | None = Field(None, description="only split point accepted (default: any of the network's)")
    confidence: Annotated[float, Field(ge=0, le=1)] = Field(
        0.25, description="least confidence of a detection"
    )
    iou: Annotated[float, Field(ge=0, le=1)] = Field(0.45, description="overlap above which NMS drops a box")
    max_detections: Annotated[int, Field(ge=1, le=10000)] = Field(300, description="most detections a frame")
    window: Annotated[int, Field(ge=1, le=1024)] = Field(
        8, description="most unanswered frames a camera may have"
    )
    max_streams: Annotated[int, Field(ge=1, le=65536)] = Field(64, description="most cameras at a time")
    max_subscribers: Annotated[int, Field(ge=1, le=65536)] = Field(
        256, description="most consumers of detections at a time"
    )
    max_http: Annotated[int, Field(ge=4, le=65536)] = Field(
        64, description="most connections at a time of browsers, scrapes and whoever has not said what it is"
    )
    max_per_address: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        None,
        description="most cameras, most consumers and most other connections of one address at a time "
        "(default: all; but who holds the most makes way first)",
    )
    address_rate: Annotated[float, Field(ge=1, le=1e6)] = Field(
        64.0,
        description="new connections, and requests, that an address may make a second; 8 s' worth at once",
    )
    stranger_rate: Annotated[float, Field(ge=1, le=1e6)] = Field(
        128.0,
        description="new connections a second of all addresses together from which neither a good token nor a camera "
        "has come; 8 s' worth at once",
    )
    max_side: Annotated[int, Field(ge=32, le=65535)] = Field(
        1280, description="longest side of a network input"
    )
    max_tail_ms: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="most milliseconds that a frame may take of the network's last layers (default: any)",
    )
    tails: Threads | Literal["auto"] = Field(
        "auto",
        description="threads that decode and run the network, each on one core; auto: one a usable core",
    )
    batch_max: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = Field(
        "auto", description="most frames that go through the network together; auto: 1 on a CPU, 16 on CUDA"
    )
    max_packet_mib: Annotated[int, Field(ge=1, le=1024)] = Field(8, description="largest packet in MiB")
    max_tensors_mib: Annotated[int, Field(ge=1, le=4096)] = Field(
        32, description="most decoded float32 tensors of one frame in MiB"
    )
    max_memory: Annotated[int, Field(ge=64, le=2**24)] = Field(
        4096, description="most memory that network, cameras and consumers may take in MiB"
    )
    profile: PathSetting | None = Field(
        None, description="file of a calibration profile that cameras may name, beside those that ship"
    )
    profiles: bool = Field(
        True, description="take the calibration profiles of cameras; --no-profiles refuses those not at hand"
    )
    max_profile_mib: Annotated[int, Field(ge=1, le=MAX_PROFILE_BYTES // 2**20)] = Field(
        4, description="largest calibration profile of a camera in MiB"
    )
    feedback: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None,
        description="measure on every n-th frame which blocks the detections depend on, and tell cameras, which then "
        "need fewer bytes; takes the extra torch and some of the network's time (default: never)",
    )
    preview: bool = Field(
        True, description="accept cameras that send previews; --no-preview refuses them: no pixels here"
    )
    tokens: Annotated[PathText, AfterValidator(some_tokens)] | None = Field(
        None,
        description="TOML file of the tokens that are asked for (see splitcast token), read anew on SIGHUP; "
        "SPLITCAST_TOKENS may hold the TOML itself (default: nobody is asked)",
    )
    allow_origin: Annotated[str, AfterValidator(origins)] = Field(
        "",
        description="sites whose pages may read this detector in a browser, and under whose names it may be asked: "
        "https://dash.example, separated by commas; *: any",
    )
    heartbeat_s: Seconds = Field(20.0, description="seconds between WebSocket pings of consumers")
    max_age_s: Seconds = Field(
        5.0, description="seconds after which a frame of a live camera is too old to be detected on"
    )
    reserve_s: Annotated[float, Field(ge=0, le=86400)] = Field(
        180.0, description="seconds that a lost camera's stream name is kept for it; 0: not at all"
    )
    hello_timeout_s: Seconds = Field(10.0, description="seconds that a camera may take to say hello")
    subscriber_queue: Annotated[int, Field(ge=1, le=65536)] = Field(
        64, description="messages kept for a slow subscriber before the oldest goes"
    )

    @property
    def tail_threads(self) -> int:
        """How many frames are worked on at a time."""
        return len(os.sched_getaffinity(0)) if self.tails == "auto" else self.tails

    def largest_batch(self, *, cuda: bool) -> int:
        """How many frames go through the network together at most."""
        return (16 if cuda else 1) if self.batch_max == "auto" else self.batch_max

    @property
    def tls(self) -> ServerTls | None:
        """Who the detector is; None without TLS."""
        from stream.transport.tls import ServerTls

        return ServerTls(self.tls_cert, self.tls_key, self.tls_client_ca) if self.tls_cert else None

    def check_machine(self) -> None:
        from services.certificates import check_files

        check_address(self.host, self.port)
        check_files(self.tls)

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        require_certificate(self)
        return self

    @model_validator(mode="after")
    def _check_exposure(self) -> Self:
        if is_loopback(self.host) or self.insecure:
            return self
        if not self.tokens:
            raise ValueError(
                f"--host: whoever reaches {self.host} could send and read: give --tokens FILE (`splitcast token "
                "create` writes it), --tls-cert and --tls-key, or say --insecure where the network keeps strangers out"
            )
        if not self.tls_cert:
            raise ValueError(
                f"--tokens: whoever can read the network on the way to {self.host} could read the tokens: give "
                "--tls-cert and --tls-key, or say --insecure where TLS is done before this detector"
            )
        return self
