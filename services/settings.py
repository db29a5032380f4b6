"""Settings of the services: flags, then environment, then a TOML file, as one frozen and checked value."""

from __future__ import annotations

import tomllib
from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from codec.errors import BadCodecSpec
from codec.spec import parse_codec
from services.errors import SettingsError
from stream.letterbox import parse_size

DEFAULT_PORT = 8765
DEFAULT_CODEC = "feature:quality=6"

Seconds = Annotated[float, Field(gt=0, le=86400)]
Port = Annotated[int, Field(ge=0, le=65535)]


def codec_text(text: str) -> str:
    try:
        return str(parse_codec(text))
    except BadCodecSpec as error:
        raise ValueError(str(error)) from None


def has_step(text: str) -> bool:
    """Whether the codec's encoder takes a quantizer step for every frame: a quality is the choice of one."""
    return parse_codec(text).step_range is not None


def size_text(text: str) -> str:
    parse_size(text)
    return text


def websocket_url(url: str) -> str:
    parts = urlsplit(url)  # raises ValueError itself, as `port` does
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.port == 0:
        raise ValueError("must be an address such as ws://host:8765 or wss://host")
    return url.rstrip("/")


def origins(text: str) -> str:
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

        Raises SettingsError, which names every setting at fault.
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
            raise SettingsError(describe(error)) from None

    @classmethod
    def table(cls) -> str:
        """Name of this service's table in the TOML file."""
        return cls.__name__.removesuffix("Settings").lower()

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


def read_table(path: Path, name: str) -> dict[str, Any]:
    """Table `name` of a TOML file, empty where it has none. Raises SettingsError."""
    try:
        table = tomllib.loads(path.read_text()).get(name, {})
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: [{name}] must be a table")
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
