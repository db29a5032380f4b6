from __future__ import annotations

from collections.abc import Callable

import pytest

from services.access.tokens import EVERYBODY, Grant
from services.detector.names import RESERVED_KEPT, NameClaim, Names, Sender
from stream.errors import SessionError
from stream.session.close_codes import CloseCode

OWNER, OTHER = "ab" * 16, "cd" * 16
SECOND = 10**9
RESERVE_S = 180


@pytest.fixture
def names() -> Names:
    return Names(2, RESERVE_S)


@pytest.fixture
def crowded() -> list[str]:
    """Names that are to make way, in order."""
    return []


@pytest.fixture
def take(names, crowded):
    """Take a name, and a list that grows when it is replaced."""

    def take(
        name: str = "door",
        secret: str | None = OWNER,
        now_s: float = 0,
        grant: Grant = EVERYBODY,
        is_silent: Callable[[], bool] = lambda: False,
    ) -> tuple[NameClaim, list]:
        replaced: list[bool] = []
        sender = Sender(secret, grant, lambda: replaced.append(True), lambda: crowded.append(name), is_silent)
        return names.take(name, sender, round(now_s * SECOND)), replaced

    return take


def refused(
    names: Names, secret: str | None, now_s: float = 0, name: str = "door", grant: Grant = EVERYBODY
) -> CloseCode:
    with pytest.raises(SessionError) as refusal:
        names.check(name, Sender(secret, grant), round(now_s * SECOND))
    return refusal.value.code


def test_the_same_camera_replaces_its_old_connection(names, take):
    old, replaced = take()
    new, _ = take()
    assert (replaced, names.holds(old), names.holds(new), len(names)) == ([True], False, True, 1)
    assert (old.same_camera, new.same_camera) == (False, True)


@pytest.mark.parametrize(("held", "other"), [(OWNER, OTHER), (OWNER, None), (None, OWNER), (None, None)])
def test_nobody_else_does(names, take, held, other):
    claim, replaced = take(secret=held)
    assert refused(names, other) is CloseCode.STREAM_TAKEN
    with pytest.raises(SessionError):
        take(secret=other)
    assert (replaced, names.holds(claim)) == ([], True)


def test_the_name_of_a_lost_camera_is_kept_for_it(names, take):
    claim, _ = take()
    names.release(claim, 0, reserve=True)
    assert refused(names, OTHER, RESERVE_S - 1) is CloseCode.STREAM_TAKEN
    with pytest.raises(SessionError, match=f"is kept for {RESERVE_S - 60} s more"):
        take(secret=OTHER, now_s=60)
    back, _ = take(now_s=RESERVE_S - 1)
    assert back.same_camera


def test_a_name_is_not_kept_for_ever(names, take):
    claim, _ = take()
    names.release(claim, 0, reserve=True)
    assert not take(secret=OTHER, now_s=RESERVE_S)[0].same_camera


@pytest.mark.parametrize(("secret", "reserve"), [(OWNER, False), (None, True)])
def test_a_name_is_free_after_a_goodbye_and_without_a_secret(names, take, secret, reserve):
    claim, _ = take(secret=secret)
    names.release(claim, 0, reserve=reserve)
    assert not take(secret=OTHER)[0].same_camera


def test_no_name_is_kept_where_the_operator_wants_none():
    names = Names(2, reserve_s=0)
    names.release(names.take("door", Sender(OWNER), 0), 0, reserve=True)
    assert not names.take("door", Sender(OWNER), 0).same_camera


def test_a_camera_that_replaces_itself_needs_no_room(names, take):
    take()
    take("porch", OTHER)
    assert refused(names, OWNER, name="garden") is CloseCode.TOO_MANY_STREAMS
    take()
    assert len(names) == 2


def test_names_that_are_kept_take_no_room_and_are_bounded(names, take):
    for number in range(RESERVED_KEPT + 1):
        claim, _ = take(f"door{number}")
        names.release(claim, 0, reserve=True)
    names.check("door0", Sender(OTHER), 0)  # the longest lost
    assert refused(names, OTHER, name="door1") is CloseCode.STREAM_TAKEN


def test_secrets_are_not_shown(names, take):
    claim, _ = take()
    names.release(claim, 0, reserve=True)
    assert OWNER not in f"{claim} {claim!r} {vars(names)!r}"


def grant(owner: str, *streams: str) -> Grant:
    return Grant(owner, frozenset({"camera"}), streams)


FLEET, DESK = grant("fleet", "*"), grant("desk", "*")
DOOR = grant("door", "door")


def test_another_camera_with_the_token_has_the_name_once_the_holder_is_silent(names, take):
    """Its session may be gone with its disk."""
    silent = False
    held, replaced = take(grant=FLEET, is_silent=lambda: silent)
    assert refused(names, OTHER, grant=FLEET) is CloseCode.STREAM_TAKEN
    silent = True
    assert refused(names, OTHER, grant=DESK) is CloseCode.STREAM_TAKEN
    new, _ = take(secret=OTHER, grant=FLEET)
    assert (replaced, names.holds(held), new.same_camera) == ([True], False, True)


@pytest.mark.parametrize("secret", [OTHER, None])
def test_a_lost_cameras_name_is_kept_for_its_token(names, take, secret):
    claim, _ = take(secret=secret, grant=FLEET)
    names.release(claim, 0, reserve=True)
    assert refused(names, OWNER, RESERVE_S - 1, grant=DESK) is CloseCode.STREAM_TAKEN
    assert take(secret=OWNER, now_s=RESERVE_S - 1, grant=FLEET)[0].same_camera


def test_who_asks_for_no_token_has_none_in_common(names, take):
    take(is_silent=lambda: True)
    assert refused(names, OTHER) is CloseCode.STREAM_TAKEN


def test_who_is_named_in_full_has_the_name_from_who_has_it_by_a_prefix(names, take):
    """As after a reload, which gave the name to a camera."""
    held, replaced = take(grant=FLEET)
    new, _ = take(secret=OTHER, grant=DOOR)
    assert (replaced, names.holds(held), new.same_camera) == ([True], False, False)
    assert refused(names, OWNER, grant=grant("spare", "door")) is CloseCode.STREAM_TAKEN
    names.release(new, 0, reserve=False)
    claim, _ = take(grant=FLEET)
    names.release(claim, 0, reserve=True)
    names.check("door", Sender(OTHER, DOOR), 0)


def test_nothing_is_kept_for_a_revoked_token():
    revoked: list[Grant] = []
    names = Names(2, RESERVE_S, lambda grant: grant not in revoked)
    names.release(names.take("door", Sender(OWNER, FLEET), 0), 0, reserve=True)
    assert refused(names, OTHER, grant=DESK) is CloseCode.STREAM_TAKEN
    revoked.append(FLEET)
    names.check("door", Sender(OTHER, DESK), 0)


def test_what_is_late_makes_way_for_a_live_camera(names, take, crowded):
    """One for each, and none for a camera that has a place, or for what is late itself."""
    first, _ = take("door.late")
    second, _ = take("yard.late")
    assert refused(names, OTHER, name="hall.late") == CloseCode.TOO_MANY_STREAMS
    take("door", OTHER)
    assert crowded == ["door.late"]
    take("door", OTHER)
    assert crowded == ["door.late"]
    names.release(first, 0, reserve=False)
    take("yard", OTHER)
    assert crowded == ["door.late", "yard.late"]
    assert refused(names, OWNER, name="yard.late") == CloseCode.TOO_MANY_STREAMS  # it has not left yet
    assert refused(names, OTHER, name="gate") == CloseCode.TOO_MANY_STREAMS
    names.release(second, 0, reserve=True)
    assert refused(names, OTHER, name="gate") == CloseCode.TOO_MANY_STREAMS
    assert len(names) == 2
