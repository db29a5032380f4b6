"""The extras of pyproject.toml: which packages come with each, and which one a command lacks."""

from __future__ import annotations

from importlib.util import find_spec

from services.errors import Exit, ServiceError

EXTRAS = {
    "mqtt": {"aiomqtt"},
    "ray": {"ray"},
    "torch": {"torch", "torchvision", "ultralytics"},
    "evaluate": {"PIL", "faster_coco_eval", "jinja2", "matplotlib"},
    "study": {"lz4", "scipy", "zstandard"},
}
"""Modules that an extra brings and a plain installation lacks. From torch on each brings the one above it, too."""


class MissingExtra(ServiceError):
    """A command needs packages that come with an extra, which is not installed."""

    exit_code = Exit.USAGE  # it is not there after a new start either

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'splitcast[{extra}]'")
        self.extra = extra


def require(extra: str, what: str) -> None:
    """Raises MissingExtra where a module of the extra is absent, which `what` needs."""
    if any(find_spec(module) is None for module in EXTRAS[extra]):
        raise MissingExtra(what, extra)


def lacking(error: ModuleNotFoundError, what: str, extra: str | None) -> MissingExtra | None:
    """What to say of `what` that ended with this error: None where no extra brings the module.

    `extra` is that which all of it needs, where it needs one always.
    """
    package = (error.name or "").partition(".")[0]
    bringing = next((name for name, packages in EXTRAS.items() if package in packages), None)
    return MissingExtra(what, extra or bringing) if bringing else None
