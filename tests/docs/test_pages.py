"""What the README and the docs tell people to type exists, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from services.cli import parse
from tests.paths import DEPLOY, DOCS, ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), DEPLOY / "README.md"]
PHONY = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
MOST_WORDS = 800  # of a README that is read to its end


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


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_valid(line):
    arguments = shlex.split(line, comments=True)[1:]
    parse(arguments)


@pytest.mark.parametrize("line", TARGETS)
def test_targets_exist_and_their_arguments_are_valid(line):
    _, target, *variables = shlex.split(line, comments=True)
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    for variable in variables:
        name, _, value = variable.partition("=")
        assert re.search(rf"^{name} *\?=", makefile, re.MULTILINE)
        if name == "DEMO_ARGS":
            parse(["demo", *shlex.split(value)])


@pytest.mark.parametrize("target", PHONY)
def test_every_target_can_be_made(target):
    planned = subprocess.run(
        ["make", "-n", target, "DATA=."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_pages_lead_to_headings(page):
    for target, heading in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", page.read_text()):
        text = (page.parent / target if target else page).read_text()
        headings = [
            re.sub(r"[^\w -]", "", line).strip().lower()
            for line in re.findall(r"^#+ (.*)", text, re.MULTILINE)
        ]
        assert heading in [title.replace(" ", "-") for title in headings], f"{target}#{heading}"


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.is_file() or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [
            (page.parent / target).resolve()
            for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
        ]
    assert set(PAGES) <= reached


def test_the_tree_of_the_architecture_names_every_module():
    [tree] = [block for block in blocks(DOCS / "architecture.md", "") if block.startswith("pyproject.toml")]
    words = set(re.findall(r"[\w.]+", tree))
    modules = {
        path.name for package in ("codec", "stream", "services") for path in (ROOT / package).rglob("*.py")
    }
    rle = {
        f"{word}.py"
        for word in re.findall(r"\w+", next(line for line in tree.splitlines() if " rle/" in line))
    }
    experiments = {path.name for path in (ROOT / "services/study/experiments").glob("*.py")}
    assert modules - words - rle - experiments - {"__init__.py"} == set()
    assert {word for word in words if word.endswith(".py")} <= modules
