"""Reads a Dockerfile as far as tests ask: what each target inherits, and what it is built from."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One FROM and what follows it, with what it inherits from stages before."""

    base: str
    env: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    ports: set[int] = field(default_factory=set)
    entrypoint: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    context: list[str] = field(default_factory=list)  # paths it copies from the build context
    stages: list[str] = field(default_factory=list)  # stages it copies or mounts from
    runs: list[str] = field(default_factory=list)


def read_stages(path: Path) -> dict[str, Stage]:
    """Stages by name, in order."""
    stages: dict[str, Stage] = {}
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, rest = line.split(maxsplit=1)
        if keyword == "FROM":
            base, _as, name = rest.split()
            parent = stages.get(base)
            stage = stages[name] = Stage(base)
            if parent:
                stage.env, stage.user, stage.ports = dict(parent.env), parent.user, set(parent.ports)
        elif keyword == "ENV":
            stage.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif keyword == "USER":
            stage.user = rest
        elif keyword == "EXPOSE":
            stage.ports |= {int(port) for port in rest.split()}
        elif keyword == "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        elif keyword == "HEALTHCHECK":
            stage.healthcheck = json.loads(rest.split("CMD", 1)[1])
        elif keyword == "RUN":
            stage.runs.append(rest)
            stage.stages += re.findall(r"--mount=\S*from=(\w+)", rest)
        elif keyword == "COPY":
            *flags, _target = shlex.split(rest)
            origin = [flag.removeprefix("--from=") for flag in flags if flag.startswith("--from=")]
            stage.stages += origin
            if not origin:
                stage.context += [flag for flag in flags if not flag.startswith("--")]
        else:
            assert keyword in ("WORKDIR", "ARG"), keyword
    return stages
