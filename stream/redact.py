"""Text that may be logged: the same text without credentials."""

from __future__ import annotations

import re

# Up to the last @ of the word: a password typed without percent-encoding may itself contain @, : / ? # or
# a quote, so nothing before that @ can be trusted to be the host. From the first colon of the word: a URL
# typed with a slash too few has a password too. Words are tried from their start only, for linear time.
_USERINFO = re.compile(r"(?<!\S)([^\s:]*:/{0,2})\S*@")

# Some cameras write the parameters as a path (/user=admin&password=…), so a slash may come before them too.
# An escape character ends the value as white space does: after it a terminal's color returns to normal.
_PARAMETER = re.compile(
    r"([?&;/][\w.%-]*(?:pass|pwd|psw|token|user|usr|login|secret|auth|key|sig)[\w.%-]*=)[^&\s\x1b]*",
    re.IGNORECASE,
)

# A detector's own tokens, which their prefix tells wherever they stand.
_TOKEN = re.compile(r"spc_[A-Za-z0-9_-]{8,}")


def redact_url(text: str) -> str:
    """The text with `***` in place of the credentials of every URL in it.

    Credentials are all that stands before the last `@` of a URL, and the values of parameters whose names
    speak of users, passwords, tokens or keys. A URL ends at white space; `://` may lack its slashes. Where
    a URL is ambiguous, too much is hidden rather than too little: `http://host/a@b` becomes `http://***@b`.
    A detector's tokens are hidden wherever they stand.
    """
    return _TOKEN.sub("spc_***", _PARAMETER.sub(r"\1***", _USERINFO.sub(r"\1***@", text)))
