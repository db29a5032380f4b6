"""The cache of kernels: code of other sources never runs, code of the same sources is not compiled again."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.services.waiting import LIVENESS_S

# Two modules of a package: a kernel in one, a function and a constant that it is made of in another.
KERNELS = """
from numba import int64
from codec.jit import kernel
from codec.deep.parts import STEP, moved

@kernel(int64(int64))
def move(x):
    return moved(x) + 1000 * STEP
"""
PARTS = """
from codec.jit import inlined

STEP = {step}
FAR = {far}

@inlined
def moved(x):
    return x + FAR
"""
RUN = """
from codec.kernels import move
print(move(0), sum(move._cache_hits.values()), sum(move._cache_misses.values()))
"""


class Package:
    """A copy of the package's way to compile, with kernels of its own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.cache = folder / "root", folder / "cache"
        self.package = self.root / "codec"
        (self.package / "deep").mkdir(parents=True)
        (self.package / "__init__.py").touch()
        (self.package / "deep" / "__init__.py").touch()
        shutil.copy(ROOT / "codec" / "jit.py", self.package)
        (self.package / "kernels.py").write_text(KERNELS)
        self.write(step=1, far=5)

    def write(self, step: int, far: int) -> None:
        (self.package / "deep" / "parts.py").write_text(PARTS.format(step=step, far=far))

    def add_a_kernel(self) -> None:
        (self.package / "kernels.py").write_text(KERNELS + KERNELS.replace("def move", "def move_on"))

    def codes(self) -> set[Path]:
        return set(self.cache.rglob("*.nbc"))

    def run(self, *before: str, **environment: str) -> list[int]:
        """What the kernel makes of 0, and how often it was loaded from the cache and compiled."""
        return [int(word) for word in self.output(RUN, *before, **environment).split()]

    def output(self, code: str, *before: str, **environment: str) -> str:
        """What a program prints that uses the package."""
        result = subprocess.run(
            [*before, sys.executable, "-c", code],
            env={
                **os.environ,
                "PYTHONPATH": str(self.root),
                "NUMBA_CACHE_DIR": str(self.cache),
                **environment,
            },
            cwd=self.root,
            check=False,
            capture_output=True,
            text=True,
            timeout=LIVENESS_S,
        )
        assert result.returncode == 0, result.stderr
        self.warnings = result.stderr.splitlines()
        return result.stdout


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


LOADED, COMPILED = [1, 0], [0, 1]


def test_a_change_in_another_file_is_compiled_and_an_unchanged_package_loaded(package: Package) -> None:
    assert package.run() == [1005, *COMPILED]
    assert package.run() == [1005, *LOADED]
    old = package.codes()
    package.write(step=2, far=6)
    assert package.run() == [2006, *COMPILED]
    assert package.run() == [2006, *LOADED]
    new = package.codes()
    assert len(old) == len(new) == 1  # what no process will load again is gone
    assert not old & new


def test_an_index_that_was_replaced_before_its_code_loads_nothing_old(package: Package) -> None:
    package.run()
    (code,) = package.codes()
    old = code.read_bytes()
    package.write(step=4, far=5)
    package.run()
    (new,) = package.codes()
    new.unlink()
    code.write_bytes(old)
    assert package.run() == [4005, *COMPILED]


def test_an_index_of_other_sources_is_not_read_on(package: Package) -> None:
    """It may name classes that are no more."""
    package.run()
    (index,) = package.cache.rglob("*.nbi")
    with index.open("r+b") as file:
        pickle.load(file)  # noqa: S301 - the version
        file.truncate()
        file.write(b"no pickle")
    package.write(step=5, far=5)
    assert package.run() == [5005, *COMPILED]


def test_a_folder_that_cannot_be_written_to_is_cached_elsewhere(package: Package, tmp_path: Path) -> None:
    """As in an installation that is root's: numba then takes the user's own folder."""
    (package.package / "__pycache__").write_text("a file, where a folder would have to be")
    home = tmp_path / "home"
    environment = {
        "NUMBA_CACHE_DIR": "",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    assert package.run(**environment) == [1005, *COMPILED]
    assert package.run(**environment) == [1005, *LOADED]
    assert list(home.rglob("*.nbc"))


NO_FOLDER = {
    "NUMBA_CACHE_DIR": "/dev/null/cache",
    "HOME": "/dev/null/home",
    "XDG_CACHE_HOME": "/dev/null/home",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def test_where_nothing_can_be_kept_kernels_are_compiled_and_one_line_says_why(package: Package) -> None:
    (package.package / "__pycache__").write_text("a file, where a folder would have to be")
    package.add_a_kernel()
    assert package.run(**NO_FOLDER)[0] == 1005
    (warning,) = package.warnings
    assert "NUMBA_CACHE_DIR" in warning
    assert "no folder for it can be written to" in warning


def test_a_full_disk_costs_the_cache_and_nothing_else(package: Package) -> None:
    package.add_a_kernel()
    package.cache.mkdir()
    full = (
        f"mount -t tmpfs -o size=4k none {package.cache} && head -c 3500 /dev/zero >{package.cache}/ballast"
    )
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    assert package.run("unshare", "-m", "sh", "-c", f'{full}; exec "$0" "$@"') == [1005, *COMPILED]
    (warning,) = package.warnings
    assert "could not be written" in warning
    assert "No space left" in warning


def test_a_cache_that_cannot_be_written_to_is_read(package: Package, tmp_path: Path) -> None:
    """As in an image whose kernels were compiled when it was built. What it does not hold is compiled elsewhere."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    package.run()
    kept = package.codes()
    mount = f"mount --bind {package.cache} {package.cache} && mount -o remount,bind,ro {package.cache}"
    read_only = ("unshare", "-m", "sh", "-c", f'{mount}; exec "$0" "$@"')
    assert package.run(*read_only) == [1005, *LOADED]
    assert package.warnings == []
    package.write(step=2, far=5)
    assert package.run(*read_only) == [2005, *COMPILED]
    assert package.warnings == []
    assert package.run(*read_only) == [2005, *LOADED]
    assert package.codes() == kept


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("left", [0, 40])
def test_a_cache_that_was_cut_short_is_made_anew(package: Package, pattern: str, left: int) -> None:
    """As after a power cut."""
    package.run()
    (file,) = package.cache.rglob(pattern)
    os.truncate(file, left)
    assert package.run() == [1005, *COMPILED]
    assert len(package.warnings) == 1
    assert package.run() == [1005, *LOADED]
    assert package.warnings == []


FOLDERS = "from codec.jit import kernel_folders; found = kernel_folders(); print(found and (*found,))"


def test_where_kernels_are_kept_and_how_many(package: Package) -> None:
    assert str((package.cache,))[1:-2] in package.output(FOLDERS)
    assert package.output(FOLDERS).endswith(", 0)\n")
    package.run()
    assert package.output(FOLDERS).endswith(", 1)\n")
    package.write(step=2, far=6)
    assert package.output(FOLDERS).endswith(", 0)\n")  # of the sources as they were


def test_where_no_kernels_can_be_kept(package: Package) -> None:
    (package.package / "__pycache__").write_text("a file, where a folder would have to be")
    assert package.output(FOLDERS, **NO_FOLDER) == "None\n"
