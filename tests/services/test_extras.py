"""What a command says where an extra is not installed, and that the extras are those of pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

from services.cli import COMMANDS, main
from services.errors import Exit
from services.extras import EXTRAS, lacking
from tests.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def distributions(requirements):
    """Names of what is required, and of the project's own extras among it."""
    names = {re.split(r"[\[<>=]", line)[0].lower().replace("_", "-") for line in requirements}
    return {name for name in names if not name.startswith("splitcast")}


def test_extras_are_those_of_the_project():
    of_module = packages_distributions()
    for extra, modules in EXTRAS.items():
        brought = {of_module[module][0].lower().replace("_", "-") for module in modules}
        assert brought == distributions(PROJECT["optional-dependencies"][extra]), extra
        assert not brought & distributions(PROJECT["dependencies"])


def names_before_torch():
    """Extras that bring no other."""
    names = list(EXTRAS)
    return names[: names.index("torch")]


def test_each_extra_brings_those_before_it():
    names = list(EXTRAS)[list(EXTRAS).index("torch") :]
    for before, extra in zip(names, [*names[1:], "test"], strict=True):
        assert f"splitcast[{before}]" in PROJECT["optional-dependencies"][extra]
    for extra in names_before_torch():
        assert f"splitcast[{extra}]" in PROJECT["optional-dependencies"]["test"]


def test_a_module_of_no_extra_is_a_defect_of_ours():
    assert lacking(ModuleNotFoundError(name="codec.absent"), "splitcast watch", None) is None


def test_an_extra_that_a_setting_asked_for_is_named_by_its_package():
    told = lacking(ModuleNotFoundError(name="torch.cuda"), "splitcast detector", None)
    assert str(told) == "splitcast detector needs the extra 'torch': pip install 'splitcast[torch]'"


ARGUMENTS = {
    "evaluate": ["--data", "."],
    "advise": ["--link-kbps", "1000"],
    "calibrate": ["--images", ".", "--out", "absent.profile"],
    "study": ["all", "--out", "absent"],
    "bench device": ["--out", "absent"],
}
BLOCKED = sorted(module for modules in EXTRAS.values() for module in modules)


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.extra])
def test_a_command_names_the_extra_that_it_lacks(name, capsys, monkeypatch):
    """As in an installation that has none of them."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({BLOCKED}));"
        f"from services.cli import main; sys.exit(main({[*name.split(), *ARGUMENTS[name]]}))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    extra = COMMANDS[name].extra
    expected = f"splitcast: splitcast {name} needs the extra '{extra}': pip install 'splitcast[{extra}]'\n"
    assert (told.returncode, told.stderr) == (Exit.USAGE, expected)


def test_a_command_of_the_plain_installation_may_lack_an_extra(capsys, monkeypatch):
    def fail(_: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("services.commands.points.run_points", fail)
    assert main(["points"]) == Exit.USAGE
    assert "splitcast points needs the extra 'torch'" in capsys.readouterr().err
