"""What settings of several commands share: their types, a network's flags, a service's environment and file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from codec.errors import BadCodecSpec
from codec.spec import parse_codec
from services.command_settings import CommandSettings
from services.errors import SettingsError
from services.logs import LogSettings
from stream.letterbox import parse_size
from stream.network.names import DEFAULT_SPLIT

DEFAULT_PORT = 8765
DEFAULT_CODEC = "feature:quality=6"


def codec_text(text: str) -> str:
    try:
        return str(parse_codec(text))
    except BadCodecSpec as error:
        raise ValueError(str(error)) from None


def size_text(text: str) -> str:
    parse_size(text)
    return text


def require_folder_of(file: Path | None, flag: str) -> None:
    """Raises SettingsError, which names the flag, where there is no folder to write `file` to."""
    if file and not file.absolute().parent.is_dir():
        raise SettingsError(f"{flag}: there is no folder {file.parent} to write {file.name} to")


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


Seconds = Annotated[float, Field(gt=0, le=86400)]
Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=1, le=256)]
CodecText = Annotated[str, AfterValidator(codec_text)]
"""A codec of features, such as feature:quality=6, in its canonical form."""
SizeText = Annotated[str, AfterValidator(size_text)]
"""A network's input, as `parse_size` takes it."""


class NetworkSettings(CommandSettings):
    """What a command is told of the network that it runs on this machine."""

    model: str = Field("yolov5n", description="network by name or path")
    size: SizeText = Field(
        "640", description="network input: longer side, or HEIGHTxWIDTH; multiples of its stride, 32 (P6: 64)"
    )
    threads: Threads = Field(1, description="torch threads")
    device: str = Field("auto", description="torch device")


class SplitSettings(NetworkSettings):
    """What a command is told of the network that it cuts at a point."""

    split: str = Field(DEFAULT_SPLIT, description="split point")


class ServiceSettings(CommandSettings):
    """What both services share. Each field is a flag, a variable SPLITCAST_FIELD and a key of the TOML table."""

    model_config = SettingsConfigDict(
        env_prefix="SPLITCAST_",
        coerce_numbers_to_str=True,  # `source = 0` in a file
        cli_enforce_required=False,  # the environment or the file may say it
        cli_implicit_flags=True,  # both forms of a switch, for the same reason
    )
    epilog: ClassVar[str | None] = (
        "Every flag is also a variable SPLITCAST_FLAG and a key of the TOML table; flags win over variables, "
        "variables over the file."
    )
    table: ClassVar[str]
    """Name of this service's table in the TOML file."""

    config: Path | None = Field(
        None, description="TOML file; the table of the command's name, [camera] or [detector], is read"
    )
    model: str = Field(
        "yolov5n", description="network by name (yolov5n|s|m|l|x, yolov5nu..., demo) or path of a .pt"
    )
    cache: Path | None = Field(None, description="folder of downloaded weights (default: ~/.cache/splitcast)")
    device: str = Field(
        "auto", description="torch device: auto, cpu, cuda, cuda:1...; auto takes CUDA where it is"
    )
    threads: Threads = Field(1, description="torch threads of this process")
    drain_s: Seconds = Field(5.0, description="seconds that a stop may take to finish frames in flight")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, else JSON lines"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe level logged"
    )

    @property
    def logs(self) -> LogSettings:
        return LogSettings(self.log_format, self.log_level, repeats=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file that either names. Raises SettingsError for that file."""
        file = {**env_settings(), **init_settings()}.get("config")
        table = None if file is None else _toml_table(settings_cls, Path(file), cls.table)
        return (init_settings, env_settings, table) if table else (init_settings, env_settings)


def _toml_table(settings: type[BaseSettings], file: Path, table: str) -> PydanticBaseSettingsSource | None:
    """Table `table` of a TOML file; None where it has none. Raises SettingsError."""
    try:
        tables = tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}") from None
    if table not in tables:
        return None
    if not isinstance(tables[table], dict):
        raise SettingsError(f"{file}: [{table}] must be a table")
    if "config" in tables[table]:
        raise SettingsError(f"--config: is no setting of a file; {file} cannot name another one")
    return TomlConfigSettingsSource(settings, file, toml_table_header=(table,))
