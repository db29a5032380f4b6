"""How many streams a measurement under load has."""

from __future__ import annotations

import pytest

from services.bench.settings import BenchLoadSettings
from services.errors import SettingsError


def test_streams_are_one_number_or_several():
    assert BenchLoadSettings.load({"streams": "16"}).stream_counts == (16,)
    assert BenchLoadSettings.load({"streams": "1,2, 32"}).stream_counts == (1, 2, 32)


@pytest.mark.parametrize("text", ["", "0", "-1", "4,", "two", "1025", "1;2"])
def test_refuses_other_numbers_of_streams(text):
    with pytest.raises(SettingsError, match=r"--streams.*separated by commas"):
        BenchLoadSettings.load({"streams": text})


def test_a_missing_folder_is_told_before_anything_is_measured(tmp_path):
    settings = BenchLoadSettings.load({"table": str(tmp_path / "nowhere" / "load.md")})
    with pytest.raises(SettingsError, match="--table: there is no folder"):
        settings.check_machine()
