"""Settings of the services: flags, then environment, then a TOML file, as one frozen and checked value."""

from __future__ import annotations

import socket
import tomllib
from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from codec.errors import BadCodecSpec
from codec.feature.codec import Feature
from codec.feature.profile import MAX_PROFILE_BYTES
from codec.spec import CodecSpec
from stream.letterbox import parse_size
from stream.session.messages import StreamName

DEFAULT_PORT = 8765
DEFAULT_CODEC = "feature:quality=6"

Seconds = Annotated[float, Field(gt=0, le=86400)]
Port = Annotated[int, Field(ge=0, le=65535)]


class ConfigError(Exception):
    """A setting is missing or wrong."""


def _codec(text: str) -> str:
    try:
        return str(CodecSpec.parse(text))
    except BadCodecSpec as error:
        raise ValueError(str(error)) from None


def has_step(text: str) -> bool:
    """Whether the codec's encoder takes a quantizer step for every frame: a quality is the choice of one."""
    return any(parameter.name == "quality" for parameter in fields(CodecSpec.parse(text).codec))  # type: ignore[arg-type]


def _size(text: str) -> str:
    parse_size(text)
    return text


def _websocket(url: str) -> str:
    parts = urlsplit(url)  # raises ValueError itself, as `port` does
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.port == 0:
        raise ValueError("must be an address such as ws://host:8765 or wss://host")
    return url.rstrip("/")


def _origins(text: str) -> str:
    for origin in filter(None, map(str.strip, text.lower().split(","))):
        parts = urlsplit(origin)
        bare = f"{parts.scheme}://{parts.netloc}" == origin.rstrip("/") and len(origin.split()) == 1
        if origin != "*" and not (bare and parts.scheme in ("http", "https") and parts.hostname):
            raise ValueError("must be origins such as https://dash.example, separated by commas, or *")
    return text


class Settings(BaseSettings):
    """What every service shares. Each field is a flag, a variable SPLITCAST_FIELD and a key of the TOML table."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="SPLITCAST_",
        extra="forbid",
        coerce_numbers_to_str=True,  # `source = 0` in a file
    )

    model: str = Field(
        "yolov5n", description="network by name (yolov5n|s|m|l|x, yolov5nu..., demo) or path of a .pt"
    )
    cache: Path | None = Field(None, description="folder of downloaded weights (default: ~/.cache/splitcast)")
    device: str = Field(
        "auto", description="torch device: auto, cpu, cuda, cuda:1...; auto takes CUDA where it is"
    )
    threads: Annotated[int, Field(ge=1, le=256)] = Field(1, description="torch threads of this process")
    heartbeat_s: Seconds = Field(20.0, description="seconds between WebSocket pings")
    drain_s: Seconds = Field(5.0, description="seconds that a stop may take to finish frames in flight")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, else JSON lines"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe level logged"
    )

    @classmethod
    def load(cls, flags: Mapping[str, Any], config: Path | None = None) -> Self:
        """Settings from flags, environment and the table [`camera` or `detector`] of a TOML file.

        Raises ConfigError, which names every setting at fault.
        """
        table = read_table(config, cls.table()) if config else {}

        class Loaded(cls):  # type: ignore[misc,valid-type]
            @classmethod
            def settings_customise_sources(
                cls,
                settings_cls: type[BaseSettings],
                init_settings: PydanticBaseSettingsSource,
                env_settings: PydanticBaseSettingsSource,
                dotenv_settings: PydanticBaseSettingsSource,
                file_secret_settings: PydanticBaseSettingsSource,
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=table)

        try:
            return cls.model_construct(
                **dict(Loaded(**flags))
            )  # of this class itself: a local one has no pickle
        except ValidationError as error:
            raise ConfigError(describe(error)) from None

    @classmethod
    def table(cls) -> str:
        """Name of this service's table in the TOML file."""
        return cls.__name__.removesuffix("Config").lower()

    @classmethod
    def add_flags(cls, parser: ArgumentParser) -> None:
        """One flag a field; what is not given stays absent, so that the environment may speak."""
        for name, field in cls.model_fields.items():
            flag = "--" + name.replace("_", "-")
            told = field.default not in (None, PydanticUndefined)
            default = f" (default: {field.default})" if told else ""
            help_text = f"{field.description}{default}".replace("%", "%%")
            if field.annotation is bool:
                parser.add_argument(flag, action=BooleanOptionalAction, default=SUPPRESS, help=help_text)
            else:
                metavar = name.rsplit("_", 1)[-1].upper()
                parser.add_argument(flag, metavar=metavar, default=SUPPRESS, help=help_text)


class CameraConfig(Settings):
    """Settings of `splitcast camera`."""

    source: str = Field(
        min_length=1,
        description="0 (webcam), rtsp://..., a video file, a folder of images, or demo (a virtual camera)",
    )
    detector: Annotated[str, AfterValidator(_websocket)] = Field(
        f"ws://127.0.0.1:{DEFAULT_PORT}", description="address of the detector"
    )
    stream: StreamName = Field(
        default_factory=lambda: socket.gethostname() or "camera",
        description="name under which detections are published (default: host name)",
    )
    split: str = Field("4.m", description="split point; 'splitcast points' lists them")
    size: Annotated[str, AfterValidator(_size)] = Field(
        "640", description="network input: longer side, or HEIGHTxWIDTH; multiples of 32"
    )
    codec: Annotated[str, AfterValidator(_codec)] = Field(
        DEFAULT_CODEC, description="codec and its parameters"
    )
    profile: Path | None = Field(
        None, description="file of a calibration profile for --codec feature (default: the shipped one)"
    )
    effort: Annotated[int, Field(ge=0, le=3)] | None = Field(
        None, description="0 to 3: how hard --codec feature searches for motion (default: the codec's)"
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
    window: Annotated[int, Field(ge=1, le=1024)] = Field(3, description="most unacknowledged frames")
    preview: bool = Field(
        False,
        description="PIXELS LEAVE THE CAMERA: about once a second send the detector a small picture, for its page",
    )
    realtime: bool = Field(False, description="play a file at its own frame rate, as a live source")
    loop: bool = Field(False, description="start a file again at its end")
    frames: Annotated[int, Field(ge=1)] | None = Field(
        None, description="stop after so many frames (default: never)"
    )
    rtsp_transport: Literal["tcp", "udp"] = Field("tcp", description="how RTSP carries video: tcp or udp")
    open_timeout_s: Seconds = Field(5.0, description="seconds that opening a live source may take")
    read_timeout_s: Seconds = Field(5.0, description="seconds that a live source may be silent")
    backoff_s: Seconds = Field(
        30.0, description="longest wait before a lost source or detector is tried again"
    )
    metrics_host: str = Field("127.0.0.1", description="address that /metrics listens on")
    metrics_port: Port = Field(8766, description="port of /metrics; 0: none")

    @property
    def spec(self) -> CodecSpec:
        """The codec with all that other settings say of it; its profile still to be found."""
        spec = CodecSpec.parse(self.codec)
        if isinstance(spec.codec, Feature) and self.effort is not None:
            return CodecSpec(replace(spec.codec, effort=self.effort))
        return spec

    @model_validator(mode="after")
    def _check_codec(self) -> Self:
        lacking = "has no quantizer step to choose"
        for name, lack in (
            ("target_kbps", lacking),
            ("max_latency_ms", lacking),
            ("effort", "searches for no motion"),
        ):
            if getattr(self, name) is not None and not has_step(self.codec):
                raise ValueError(f"--{name.replace('_', '-')}: {self.codec} {lack}; take --codec feature")
        return self


class DetectorConfig(Settings):
    """Settings of `splitcast detector`."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0: all")
    port: Port = Field(DEFAULT_PORT, description="port to listen on; 0: any free one")
    split: str | None = Field(None, description="only split point accepted (default: any of the network's)")
    confidence: Annotated[float, Field(ge=0, le=1)] = Field(
        0.25, description="least confidence of a detection"
    )
    iou: Annotated[float, Field(ge=0, le=1)] = Field(0.45, description="overlap above which NMS drops a box")
    max_detections: Annotated[int, Field(ge=1, le=10000)] = Field(300, description="most detections a frame")
    window: Annotated[int, Field(ge=1, le=1024)] = Field(
        8, description="most unacknowledged frames a camera may have"
    )
    max_streams: Annotated[int, Field(ge=1, le=65536)] = Field(64, description="most cameras at a time")
    max_subscribers: Annotated[int, Field(ge=1, le=65536)] = Field(
        256, description="most consumers of detections at a time"
    )
    max_side: Annotated[int, Field(ge=32, le=65535)] = Field(
        1920, description="longest side of a network input"
    )
    max_packet_mib: Annotated[int, Field(ge=1, le=1024)] = Field(8, description="largest packet in MiB")
    max_tensors_mib: Annotated[int, Field(ge=1, le=4096)] = Field(
        32, description="most decoded float32 tensors of one frame in MiB"
    )
    profile: Path | None = Field(
        None, description="file of a calibration profile that cameras may name, beside those that ship"
    )
    profiles: bool = Field(
        True, description="take the calibration profiles of cameras; --no-profiles refuses those not at hand"
    )
    max_profile_mib: Annotated[int, Field(ge=1, le=MAX_PROFILE_BYTES // 2**20)] = Field(
        4, description="largest calibration profile of a camera in MiB"
    )
    preview: bool = Field(
        True, description="accept cameras that send previews; --no-preview refuses them: no pixels here"
    )
    allow_origin: Annotated[str, AfterValidator(_origins)] = Field(
        "",
        description="sites whose pages may read this detector in a browser, and under whose names it may be asked: "
        "https://dash.example, separated by commas; *: any",
    )
    hello_timeout_s: Seconds = Field(10.0, description="seconds that a camera may take to say hello")
    subscriber_queue: Annotated[int, Field(ge=1, le=65536)] = Field(
        64, description="messages kept for a slow subscriber before the oldest goes"
    )


def read_table(path: Path, name: str) -> dict[str, Any]:
    """Table `name` of a TOML file, empty where it has none. Raises ConfigError."""
    try:
        table = tomllib.loads(path.read_text()).get(name, {})
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: [{name}] must be a table")
    return table


def describe(error: ValidationError) -> str:
    """Every setting at fault, one a line, by its flag."""
    lines = []
    for fault in error.errors(include_url=False):
        name = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if not name:  # of several settings, which the message names
            lines.append(message)
            continue
        if fault["type"] == "missing":
            message = "is needed"
        elif fault["type"] == "extra_forbidden":
            message = "is not a setting"
        lines.append(f"--{name.replace('_', '-')}: {message}")
    return "\n".join(lines)
