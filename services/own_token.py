"""The token of this program, which it sends to a detector that asks for one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from services.access.tokens import is_token
from services.errors import SettingsError
from services.regular_file import open_regular
from services.settings import ClientSettings
from stream.errors import ConnectionLost

_LONGEST = 256  # bytes that are read: a file that is longer holds no token


def token_headers(settings: ClientSettings) -> Mapping[str, str]:
    """The headers that go with a request: empty without a token. One in a file is read now.

    Touches that file: for a worker thread. Raises SettingsError, which does not show what is in it.
    """
    token = settings.token.get_secret_value() if settings.token else None
    if settings.token_file is not None:
        try:
            with open_regular(settings.token_file) as opened:
                token = opened.read(_LONGEST).decode(errors="replace").strip()
        except OSError as error:
            raise SettingsError(
                f"--token-file: cannot read {settings.token_file}: {error.strerror}"
            ) from None
        if not is_token(token):
            raise SettingsError(
                f"--token-file: {settings.token_file} holds no token: that is one line, which begins with spc_ and has "
                "47 characters, as `splitcast token create` prints it"
            )
    return {"Authorization": f"Bearer {token}"} if token else {}


async def current_headers(settings: ClientSettings) -> Mapping[str, str]:
    """The same for a program that runs. Raises ConnectionLost: somebody may be writing the file anew."""
    try:
        return await asyncio.to_thread(token_headers, settings)
    except SettingsError as error:
        raise ConnectionLost(settings.as_given(str(error))) from None
