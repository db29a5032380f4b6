"""What the README and the docs tell people to type exists, and its Python runs as written."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from pathlib import Path

import pytest

from services.camera.settings import CameraSettings
from services.cli import build_parser
from services.detector.settings import DetectorSettings
from services.settings import DEFAULT_PORT
from tests.paths import ROOT
from tests.services.waiting import LIVENESS_S

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "deploy/README.md"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def shell_lines(page: Path) -> list[str]:
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


COMMANDS = sorted({line for page in PAGES for line in shell_lines(page) if line.startswith("splitcast ")})
TARGETS = sorted({line for page in PAGES for line in shell_lines(page) if line.startswith("make ")})


def test_there_are_commands():
    assert len(COMMANDS) > 10
    assert len(TARGETS) >= 3


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_valid(line):
    arguments = shlex.split(line, comments=True)[1:]
    options = build_parser().parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if name not in ("run", "config")}
    if arguments[0] == "camera":
        CameraSettings.load(given)
    elif arguments[0] == "detector":
        DetectorSettings.load(given)


@pytest.mark.parametrize("line", TARGETS)
def test_targets_exist_and_their_arguments_are_valid(line):
    _, target, *variables = shlex.split(line, comments=True)
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    for variable in variables:
        name, _, value = variable.partition("=")
        assert re.search(rf"^{name} *\?=", makefile, re.MULTILINE)
        if name == "DEMO_ARGS":
            build_parser().parse_args(["demo", *shlex.split(value)])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


async def test_the_consumer_prints_detections(weights, start_detector, make_camera):
    """The README's Python, word for word but for the port."""
    [program] = blocks(ROOT / "README.md", "python")
    assert program.count(str(DEFAULT_PORT)) == 1
    async with start_detector() as running:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-c", program.replace(str(DEFAULT_PORT), str(running.port))),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout
        camera = asyncio.create_task(make_camera(running.url, loop=True, realtime=True).run())
        try:
            line = await asyncio.wait_for(process.stdout.readline(), LIVENESS_S)
        finally:
            camera.cancel()
            process.kill()
            await process.wait()
            await asyncio.wait([camera])
    assert re.match(rb"door \d+ Detections\(xyxy=", line), line
