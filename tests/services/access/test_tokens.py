from __future__ import annotations

import hmac
from unittest import mock

import pytest

from services.access.tokens import (
    EVERYBODY,
    PREFIX,
    ROLES,
    Grant,
    Quota,
    Tokens,
    new_token,
    token_hash,
)

TOKEN, OTHER = new_token(), new_token()


def make_grant(name: str = "door", token: str = TOKEN, roles=("camera",), streams=("door",), **more) -> Grant:
    return Grant(name, frozenset(roles), tuple(streams), hash=token_hash(token), **more)


def test_a_token_is_random_and_says_what_it_is():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.startswith("spc_") and len(token) == 47 for token in tokens)


def test_a_token_brings_what_it_grants():
    tokens = Tokens([make_grant(), make_grant("porch", OTHER, streams=["porch"])])
    assert tokens.grant(TOKEN) == make_grant()
    assert [grant.owner for grant in tokens] == ["door", "porch"]
    assert len(tokens) == 2


@pytest.mark.parametrize(
    "token",
    [
        "",
        PREFIX,
        TOKEN[:-1],
        TOKEN + "A",
        TOKEN.upper(),
        f" {TOKEN}",
        f"{TOKEN}\n",
        OTHER,
        token_hash(TOKEN),
        "\udc80",
        "é" * 47,
        "x" * 10**6,
    ],
)
def test_anything_else_brings_nothing(token):
    assert Tokens([make_grant()]).grant(token) is None


def test_all_hashes_are_compared_in_constant_time():
    """Not until the first that fits, and by nothing that ends at the first difference."""
    tokens = Tokens([make_grant(), make_grant("porch", OTHER)])
    for token in (TOKEN, OTHER, new_token()):
        with mock.patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compare:
            tokens.grant(token)
        assert compare.call_args_list == [
            mock.call(token_hash(known), token_hash(token)) for known in (TOKEN, OTHER)
        ]


def test_neither_token_nor_hash_is_shown():
    tokens = Tokens([make_grant()])
    shown = f"{tokens!r} {list(tokens)!r} {tokens.grant(TOKEN)}"
    assert TOKEN not in shown
    assert token_hash(TOKEN) not in shown


@pytest.mark.parametrize(
    ("streams", "granted", "refused"),
    [
        (["door"], ["door"], ["doors", "Door", "doo", "", "*"]),
        (["yard-*"], ["yard-1", "yard-"], ["yard", "backyard-1"]),
        (["door", "yard-*"], ["door", "yard-1"], ["porch"]),
        (["*"], ["door", "a.b"], []),
        (["door"], ["door.late"], ["door.late.late", "yard.late", ".late"]),
        (["yard-*"], ["yard-1.late"], ["yard.late"]),
        (["door.late"], ["door.late"], ["door"]),
        ([], [], ["door"]),
    ],
)
def test_streams_are_granted_by_name_and_prefix(streams, granted, refused):
    grant = make_grant(streams=streams)
    assert all(grant.may_stream(name) for name in granted)
    assert not any(grant.may_stream(name) for name in refused)


def test_roles_are_granted_one_by_one():
    grant = make_grant(roles=["camera", "metrics"])
    assert [role for role in ROLES if grant.may(role)] == ["camera", "metrics"]


def test_a_name_that_a_token_names_in_full_is_its_cameras():
    fleet = make_grant("fleet", OTHER, streams=["*"])
    reader = make_grant("reader", new_token(), roles=["consumer"], streams=["porch"])
    own, fleet, _ = Tokens([make_grant(), fleet, reader])
    assert own.may_send("door")
    assert not own.may_send("yard")
    assert not fleet.may_send("door")
    assert fleet.may_stream("door")  # to read it
    assert fleet.may_send("porch")
    assert (own.owns("door"), fleet.owns("door")) == (True, False)


def test_two_tokens_may_name_the_same_stream():
    one, two = Tokens([make_grant(), make_grant("spare", OTHER)])
    assert one.may_send("door")
    assert two.may_send("door")


def test_everybody_may_everything_where_nobody_is_asked():
    assert all(EVERYBODY.may(role) for role in ROLES)
    assert EVERYBODY.may_send("anything")
    assert EVERYBODY.quota == Quota()


@pytest.mark.parametrize(
    ("after", "stands"),
    [
        ([make_grant()], True),
        ([make_grant(), make_grant("porch", OTHER, streams=["*"])], True),
        ([], False),
        ([make_grant(token=OTHER)], False),  # made anew under its name
        ([make_grant(roles=["consumer"])], False),
        ([make_grant(streams=["porch"])], False),
        ([make_grant(quota=Quota(frames_per_s=1))], False),
    ],
)
def test_a_grant_stands_while_its_token_grants_the_same(after, stands):
    (grant,) = Tokens([make_grant()])
    assert Tokens(after).stands(grant) is stands


def test_a_grant_stands_when_another_token_reserves_a_name():
    (fleet,) = Tokens([make_grant("fleet", OTHER, streams=["*"])])
    assert Tokens([fleet, make_grant()]).stands(fleet)
