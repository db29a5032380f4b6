"""`splitcast token`, from the command line to what a detector reads."""

from __future__ import annotations

import stat

import pytest

from services.access.token_file import TokenSource
from services.access.tokens import Quota, is_token, token_hash
from services.cli import main
from services.errors import Exit


@pytest.fixture
def token(tmp_path, capsys):
    """Runs a command on a file of tokens: the exit code, and what came on both outputs."""

    def run(command: str, *arguments: str) -> tuple[int, str, str]:
        code = main(["token", command, "--tokens", str(tmp_path / "tokens.toml"), *arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def read(tmp_path):
    return TokenSource(str(tmp_path / "tokens.toml")).read


def test_a_token_is_shown_once_and_stored_hashed(token, read, tmp_path):
    code, out, told = token("create", "door", "--role", "camera", "--stream", "door", "--stream", "yard-*")
    assert code == Exit.OK
    assert is_token(out.strip())
    grant = read().grant(out.strip())
    assert (grant.owner, grant.roles, grant.streams) == ("door", {"camera"}, ("door", "yard-*"))
    stored = (tmp_path / "tokens.toml").read_text()
    assert token_hash(out.strip()) in stored
    assert out.strip() not in stored + told
    assert "SIGHUP" in told


def test_a_token_goes_to_a_file_of_mode_600(token, read, tmp_path):
    file = tmp_path / "door.token"
    code, out, _ = token("create", "door", "--role", "camera", "--stream", "*", "--out", str(file))
    assert (code, out, stat.S_IMODE(file.stat().st_mode)) == (Exit.OK, "", 0o600)
    assert read().grant(file.read_text().strip())
    code, _, told = token("create", "other", "--role", "metrics", "--out", str(file))
    assert code == Exit.USAGE
    assert "File exists" in told
    assert len(read()) == 1


def test_a_cameras_limits_are_listed(token, read):
    limits = ["--frames-per-s", "12.5", "--max-packet-kib", "64", "--max-side", "640"]
    token("create", "door", "--role", "camera", "--stream", "door", *limits, "--no-preview", "--no-profiles")
    token("create", "scrape", "--role", "metrics")
    assert next(iter(read())).quota == Quota(12.5, 64 * 1024, 640, preview=False, profiles=False)
    code, out, _ = token("list")
    assert code == Exit.OK
    assert [line.split() for line in out.splitlines()] == [
        ["NAME", "ROLES", "STREAMS", "LIMITS"],
        ["door", "camera", "door", "frames_per_s=12.5,max_packet_kib=64,max_side=640,no-preview,no-profiles"],
        ["scrape", "metrics", "-", "-"],
    ]


def test_a_revoked_token_grants_nothing(token, read):
    first, second = (
        token("create", name, "--role", "consumer", "--stream", "*")[1].strip() for name in ("a", "b")
    )
    code, out, told = token("revoke", "a")
    assert (code, out) == (Exit.OK, "")
    assert "'a' is revoked" in told
    assert not read().grant(first)
    assert read().grant(second)


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("create", ["a b", "--role", "metrics"], "the new token: name: must be 1 to 64"),
        ("create", ["door"], "--role"),
        ("create", ["door", "--role", "boss"], "--role"),
        ("create", ["door", "--role", "camera"], "streams: name those that it grants"),
        ("create", ["door", "--role", "metrics", "--no-preview"], "for the role camera alone"),
        ("list", [], "cannot read"),
        ("revoke", ["door"], "cannot read"),
    ],
)
def test_says_what_is_wrong_and_makes_nothing(token, tmp_path, command, arguments, words):
    code, out, told = token(command, *arguments)
    assert (code, out) == (Exit.USAGE, "")
    assert words in told
    assert not list(tmp_path.iterdir())


def test_a_token_that_cannot_be_listed_is_not_left_in_its_file(token, tmp_path):
    token("create", "door", "--role", "metrics")
    assert token("create", "door", "--role", "metrics", "--out", str(tmp_path / "x"))[0] == Exit.USAGE
    assert not (tmp_path / "x").exists()
