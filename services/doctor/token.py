"""Tokens: a camera's own, read and shown to the detector, or those that a detector asks for. None is ever printed."""

from __future__ import annotations

import stat
from collections import Counter
from pathlib import Path

from services.access.token_file import TokenSource
from services.camera.settings import CameraSettings
from services.detector.settings import DetectorSettings
from services.doctor.examination import in_thread
from services.doctor.finding import Finding, doubtful, fine, wrong
from services.doctor.trial import features_link
from services.own_token import token_headers
from stream.errors import ConnectionLost

_UNKNOWN, _NOT_GRANTED = 401, 403


async def look_at_own_token(settings: CameraSettings) -> Finding:
    """Whether the camera's token can be read, and what the detector says of it.

    Raises SettingsError where it cannot be read, ConnectionLost.
    """
    has_one = bool(await in_thread(token_headers, settings))
    try:
        async with features_link(settings):
            pass
    except ConnectionLost as lost:
        if lost.status not in (_UNKNOWN, _NOT_GRANTED):
            raise
        return _judge_denial(settings, lost.status, has_one=has_one)
    if not has_one:
        return fine("the detector asks for none", given=False)
    if settings.token_file and _others_may(settings.token_file, stat.S_IROTH):
        return doubtful(
            f"anybody on this machine may read {settings.token_file}",
            f"chmod 600 {settings.token_file}; if it was so for long, revoke the token",
            given=True,
        )
    if not await _asks_for_one(settings):
        return doubtful(
            "read; but the detector asks for none, and lets everybody in",
            "start the detector with --tokens, or leave the token out",
            given=True,
        )
    return fine(f"{_whence(settings)}: read, and accepted with the role camera", given=True, role="camera")


async def _asks_for_one(settings: CameraSettings) -> bool:
    """Whether who shows no token is kept out. Raises ConnectionLost.

    Not by plain HTTP, to which a detector answers by some names alone (--allow-origin).
    """
    try:
        async with features_link(settings, shows_token=False):
            return False
    except ConnectionLost as lost:
        if lost.status not in (_UNKNOWN, _NOT_GRANTED):
            raise
        return True


def look_at_tokens(settings: DetectorSettings) -> Finding:
    """Whether the tokens that a detector asks for can be read, and what they grant. Raises SettingsError."""
    if not settings.tokens:
        return fine(f"none are asked for: everybody who reaches {settings.host} may do everything", tokens=0)
    source = TokenSource(settings.tokens)
    grants = list(source.read())
    roles = Counter(role for grant in grants for role in grant.roles)
    if not grants:
        return doubtful(
            f"{source} lists none: nobody gets in",
            f"splitcast token create NAME --role camera --stream NAME --tokens {source.file or 'FILE'}",
            tokens=0,
        )
    listed = ", ".join(f"{count} {role}" for role, count in sorted(roles.items()))
    measured = f"{source}: {len(grants)} tokens ({listed})"
    facts = {"tokens": len(grants), "roles": dict(sorted(roles.items()))}
    if "camera" not in roles:
        return doubtful(f"{measured}: none is for a camera", "make one with --role camera", **facts)
    return fine(measured, **facts)


def _judge_denial(settings: CameraSettings, status: int, *, has_one: bool) -> Finding:
    make = (
        f"on the detector's machine: splitcast token create {settings.stream} --role camera "
        f"--stream {settings.stream} --out {settings.stream}.token, then kill -HUP the detector"
    )
    facts: dict[str, object] = {"given": has_one, "status": status}
    if not has_one:
        return wrong(
            "the detector asks for a token, and there is none", f"--token-file FILE; {make}", **facts
        )
    if status == _UNKNOWN:
        return wrong(f"{_whence(settings)}: read, but the detector does not know it (401)", make, **facts)
    return wrong(
        f"{_whence(settings)}: read, but the detector does not let it send {settings.stream!r} (403)",
        f"{make}; or choose --stream as the token has it",
        **facts,
    )


def _whence(settings: CameraSettings) -> str:
    return str(settings.token_file) if settings.token_file else "SPLITCAST_TOKEN"


def _others_may(file: Path, what: int) -> bool:
    try:
        return bool(file.stat().st_mode & what)
    except OSError:
        return False
