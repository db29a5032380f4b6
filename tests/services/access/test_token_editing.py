"""Tokens in the file that lists them: nothing else in it changes."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.access.token_editing import add_token, remove_token
from services.access.token_file import TokenEntry, parse_tokens
from services.errors import SettingsError

WRITTEN = """\
# Ours.

[[token]]  # at the door
name = "door"
hash = "{}"
roles = ["camera"]
streams = ["door"]
frames_per_s = 15

# Of the desk,
# on which it stands.
[[ token ]]
name = "desk"
hash = "{}"
roles = ["consumer"]
streams = [
  "door",  # and no other
]

  # The last.
  [[token]]
  name = "last"
  hash = "{}"
  roles = ["metrics"]
""".format(*(str(digit) * 64 for digit in range(3)))


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "tokens.toml"
    file.write_text(WRITTEN)
    file.chmod(0o640)
    return file


def make_entry(name: str, **given) -> TokenEntry:
    return TokenEntry(name=name, hash=f"{abs(hash(name)):064x}"[-64:], roles=("metrics",), **given)


def names(file) -> list[str]:
    return [entry.name for entry in parse_tokens(file.read_text(), str(file))]


def test_a_new_file_is_its_owners_alone(tmp_path):
    file = tmp_path / "tokens.toml"
    entry = TokenEntry(
        name="door",
        hash="0" * 64,
        roles=("camera", "page"),
        streams=("door", "yard-*"),
        frames_per_s=12.5,
        max_packet_kib=64,
        max_side=640,
        preview=False,
    )
    before = os.umask(0)
    try:
        add_token(file, entry)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert parse_tokens(file.read_text(), "") == [entry]
    assert list(tmp_path.iterdir()) == [file]


def test_a_token_is_added_behind_what_is_there(file):
    add_token(file, make_entry("new"))
    assert file.read_text().startswith(WRITTEN)
    assert names(file) == ["door", "desk", "last", "new"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640  # as its detector reads it


@pytest.mark.parametrize(
    ("name", "first_gone", "next_kept"),
    [
        ("door", "[[token]]  # at the door", "# Of the desk,"),
        ("desk", "[[ token ]]", "  # The last."),
        ("last", '  name = "last"', ""),
    ],
)
def test_a_token_goes_and_what_is_said_of_others_stays(file, name, first_gone, next_kept):
    remove_token(file, name)
    start = WRITTEN.index(first_gone) if name != "last" else WRITTEN.index("  [[token]]")
    end = WRITTEN.index(next_kept, start) if next_kept else len(WRITTEN)
    assert file.read_text() == WRITTEN[:start] + WRITTEN[end:]
    assert names(file) == [other for other in ("door", "desk", "last") if other != name]


def test_what_is_said_behind_the_last_goes_with_it(file):
    file.write_text(f"{WRITTEN}  # It scrapes.\n\n# Since May.\n")
    remove_token(file, "last")
    assert file.read_text().endswith("# The last.\n")


def test_all_may_go_one_by_one(file):
    for name in ("desk", "last", "door"):
        remove_token(file, name)
    assert names(file) == []
    with pytest.raises(SettingsError, match="there are: none"):
        remove_token(file, "door")


def test_a_name_is_given_once(file):
    with pytest.raises(SettingsError, match="there is a token 'door' in"):
        add_token(file, make_entry("door"))
    assert file.read_text() == WRITTEN


def test_whose_name_is_unknown_is_told_the_others(file):
    with pytest.raises(SettingsError, match=r"no token 'porch' in .*; there are: desk, door, last"):
        remove_token(file, "porch")


@pytest.mark.parametrize(
    "text",
    [
        f'token = [{{name="door", hash="{"0" * 64}", roles=["metrics"]}}]',
        f'["token"]\nx = """\n[[token]]\n"""\n[[token]]\nname="door"\nhash="{"0" * 64}"\nroles=["metrics"]\n',
    ],
)
def test_what_cannot_be_changed_safely_is_left(file, text):
    file.write_text(text)
    with pytest.raises(SettingsError):
        add_token(file, make_entry("new"))
    with pytest.raises(SettingsError):
        remove_token(file, "door")
    assert file.read_text() == text


def test_programs_that_write_at_once_lose_nothing(file):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add_token(file, make_entry(f"n{number}")), range(24)))
    assert len(names(file)) == 3 + 24


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_stays_its_owners(file):
    """Whom the detector runs as, and not who ran the command."""
    os.chown(file, 12345, 12346)
    add_token(file, make_entry("new"))
    remove_token(file, "door")
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 12346)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_who_may_not_give_a_file_away_keeps_it(file, monkeypatch):
    """Another's, in a folder of one's own."""

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    add_token(file, make_entry("new"))
    assert names(file) == ["door", "desk", "last", "new"]


def test_all_is_on_the_disk_before_it_takes_the_files_place(file, monkeypatch):
    synced: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(os, "fsync", lambda opened: synced.append((os.fstat(opened).st_size, names(file))))
    add_token(file, make_entry("new"))
    assert synced == [(file.stat().st_size, ["door", "desk", "last"])]


def test_a_link_that_somebody_plants_is_not_followed(file, tmp_path, monkeypatch):
    """Neither one that is there before, nor one that comes at the last moment."""
    other, partial = tmp_path / "other", tmp_path / ".tokens.toml.partial"
    other.write_text("another's")
    partial.symlink_to(other)
    add_token(file, make_entry("new"))
    assert names(file) == ["door", "desk", "last", "new"]
    assert not file.is_symlink()
    real = os.open

    def late(path, *arguments):
        if path == partial:
            partial.symlink_to(other)
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(OSError, match="File exists"):
        add_token(file, make_entry("newer"))
    assert names(file) == ["door", "desk", "last", "new"]
    assert other.read_text() == "another's"


def test_says_that_there_is_no_folder(tmp_path):
    with pytest.raises(SettingsError, match="no folder"):
        add_token(tmp_path / "none" / "tokens.toml", make_entry("new"))
