"""Settings of a command as one frozen and checked value, by pydantic-settings' own command line."""

from __future__ import annotations

import json
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, NoReturn, Self, get_args

from pydantic import PrivateAttr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from services.errors import SettingsError
from services.logs import LogSettings
from stream.redact import redact_url

_, _POSITIONAL = get_args(CliPositionalArg[str])
_NO_TEXT = "\0"
"""Stands for None on a command line: nobody can type it, where `null`, which is the default, may name a stream."""


class GivenValue(NamedTuple):
    """A setting's value before it is checked."""

    value: Any
    origin: str  # as people know it: --port, SPLITCAST_PORT, port in [detector] of a file


class _Shown(str):
    """A text that stands for itself where others are quoted."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class CommandSettings(BaseSettings):
    """What a command is told, by flags alone.

    Each field is a flag: its description is the help text, its title stands for the value there. A switch has one
    form, that which changes its default.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags="toggle",
        cli_enforce_required=True,
    )
    epilog: ClassVar[str | None] = None
    """Last words of the help text."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What repr() and str() show: every value without the credentials that a URL in it may have."""
        for name, value in super().__repr_args__():
            yield name, _Shown(redact_url(repr(value)))

    @property
    def logs(self) -> LogSettings:
        """How the command logs."""
        return LogSettings()

    def check_machine(self) -> None:
        """Look, before anything heavy is loaded, whether this machine has what the command needs.

        Raises ServiceError where it has not.
        """

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @classmethod
    def load(cls, flags: Mapping[str, Any]) -> Self:
        """Settings from flags, named as the fields are, and from wherever else the command looks.

        Raises SettingsError, which names everything at fault as it was given.
        """
        values = cls.collect(flags)
        given = {name: value.origin for name, value in values.items()}
        try:
            settings = cls(**{name: value.value for name, value in values.items()})
        except ValidationError as error:
            raise SettingsError(_faults(error, cls, given)) from None
        settings._origins.update(given)
        return settings

    @classmethod
    def collect(cls, flags: Mapping[str, Any]) -> dict[str, GivenValue]:
        """What was given for each field."""
        return {name: GivenValue(value, _flag(name, cls)) for name, value in flags.items()}

    def as_given(self, message: str) -> str:
        """The message, which may begin with a flag, with the name under which that setting was given."""
        return _as_given(message, self._origins)

    @classmethod
    def parse(cls, arguments: Sequence[str], program: str, description: str) -> Self:
        """Settings from the arguments of `program`, which `--help` describes.

        Raises SettingsError where a flag or its value is wrong, SystemExit after help.
        """
        parser = _Parser(
            prog=program,
            description=description,
            epilog=cls.epilog,
            formatter_class=RawDescriptionHelpFormatter,
        )
        source = CliSettingsSource[ArgumentParser](
            cls,
            root_parser=parser,
            parse_args_method=_parse_arguments,
            add_argument_method=partial(_add_argument, _by_name(cls)),
            cli_parse_none_str=_NO_TEXT,
            cli_hide_none_type=True,
        )
        return cls.load(source(args=list(arguments))())


class _Parser(ArgumentParser):
    """argparse's, whose complaints are errors as others, to be told as those are."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; `{self.prog} --help` lists the flags")


def _as_given(message: str, given: Mapping[str, str]) -> str:
    flag, colon, rest = message.partition(":")
    origin = given.get(flag.removeprefix("--").replace("-", "_"), flag) if flag.startswith("--") else flag
    return f"{origin}{colon}{rest}"


def _by_name(settings: type[BaseSettings]) -> dict[str, FieldInfo]:
    """Fields as flags name them: `json` is an alias, as pydantic keeps the name for itself."""
    return {field.alias or name: field for name, field in settings.model_fields.items()}


def _parse_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """argparse's; repeated flags as JSON, where pydantic-settings would cut them at commas: those of codecs, too."""
    options = parser.parse_args(arguments)
    for name, value in vars(options).items():
        if isinstance(value, list):
            setattr(options, name, json.dumps(value))
    return options


def _add_argument(
    fields: Mapping[str, FieldInfo], parser: ArgumentParser, *names: str, **options: Any
) -> None:
    """argparse's, with help as a field says it. pydantic-settings would tell types, and defaults that are None.

    What is suppressed is no flag: pydantic-settings would only not tell of it.
    """
    if options.get("help") == SUPPRESS:
        return
    name = options.get("dest", names[0])
    if field := fields.get(name):
        options["help"] = _help(field).replace("%", "%%")
        if "metavar" in options:
            options["metavar"] = _value_name(name, field)
    parser.add_argument(*sorted(names, key=len), **options)


def _help(field: FieldInfo) -> str:
    if field.default is True:
        return f"{field.description} (default: yes)"
    if field.default is False or field.default in (None, PydanticUndefined, "", ()):
        return field.description or ""
    default = f"{field.default:g}" if isinstance(field.default, float) else field.default
    return f"{field.description} (default: {default})"


def _value_name(name: str, field: FieldInfo) -> str:
    return field.title or name.rsplit("_", 1)[-1].upper()


def _faults(error: ValidationError, settings: type[BaseSettings], given: Mapping[str, str]) -> str:
    """Every setting at fault, one a line, by the name under which it was given."""
    lines = []
    for fault in error.errors(include_url=False):
        message = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:  # of several settings, which the message names
            lines.append(_as_given(message, given))
            continue
        if fault["type"] == "missing":
            message = "is needed"
        elif fault["type"] == "extra_forbidden":
            message = "is not a setting"
        name = str(fault["loc"][0])
        lines.append(f"{given.get(name) or _flag(name, settings)}: {message}")
    return "\n".join(lines)


def _flag(name: str, settings: type[BaseSettings]) -> str:
    field = _by_name(settings).get(name)
    if field and _POSITIONAL in field.metadata:
        return _value_name(name, field)
    return f"--{name.replace('_', '-')}"
