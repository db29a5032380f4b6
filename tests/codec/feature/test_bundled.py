"""The profiles that come with the package, and any folder of profiles."""

from __future__ import annotations

import pytest

from codec.errors import ProfileError
from codec.feature.bundled import BUNDLED, BundledProfiles
from codec.feature.codec import Feature
from codec.feature.parameters import PARAMETER_BYTES
from codec.feature.profile import Profile
from tests.codec.calibrated import make_profile
from tests.codec.samples import LAYOUT


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("aa.4.m", "bb.2.m")):
        (tmp_path / f"{name}.profile").write_bytes(make_profile(LAYOUT, number).pack())
    (tmp_path / "README.md").write_text("no profile")
    return tmp_path


def test_profiles_are_found_by_weights_and_split(folder):
    bundled = BundledProfiles(folder)
    assert bundled.find("aa", "4.m") == make_profile(LAYOUT, 0)
    assert bundled.find("bb", "2.m") == make_profile(LAYOUT, 1)
    assert bundled.find("aa", "2.m") is None
    assert bundled.find("", "") is None


def test_profiles_are_a_mapping_by_hash(folder):
    bundled = BundledProfiles(folder)
    profile = make_profile(LAYOUT, 1)
    assert len(bundled) == 2
    assert set(bundled) == {make_profile(LAYOUT, 0).hash, profile.hash}
    assert bundled[profile.hash] == profile
    assert "0" * 64 not in bundled


def test_no_file_is_read_before_a_profile_is_asked_for(folder):
    bundled = BundledProfiles(folder)
    (folder / "cc.4.m.profile").write_bytes(b"no profile")
    with pytest.raises(ProfileError):
        bundled.find("aa", "4.m")


def test_a_folder_that_is_not_there_has_none(tmp_path):
    assert dict(BundledProfiles(tmp_path / "none")) == {}


def test_what_is_shipped_is_found_by_its_first_bytes():
    for profile_hash, profile in BUNDLED.items():
        assert profile.hash == profile_hash
        assert Profile.parse(profile.pack()) == profile
        assert Feature.from_parameters(bytes.fromhex(profile_hash)[:PARAMETER_BYTES]).profile == profile


def test_what_is_shipped_is_for_what_its_file_is_named_by():
    shipped = {(profile.metadata["model"], profile.metadata["split"]) for profile in BUNDLED.values()}
    assert shipped == {("demo", "4.m"), ("yolov5n", "4.m"), ("yolov5n", "3")}
    for profile in BUNDLED.values():
        assert BUNDLED.find(str(profile.metadata["weights"]), str(profile.metadata["split"])) is profile


def test_no_profile_has_the_bytes_of_none():
    assert Feature.from_parameters(bytes(PARAMETER_BYTES)) == Feature()
    assert not any(profile_hash.startswith("00" * PARAMETER_BYTES) for profile_hash in BUNDLED)
