from __future__ import annotations

import os
import re

import pytest

from services.access.token_file import TokenSource
from services.commands.settings import WatchSettings
from services.errors import SettingsError
from services.own_token import token_headers
from services.regular_file import open_regular


def test_opens_a_file_and_a_link_to_one(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as opened:
            assert opened.read() == b"text"


def test_waits_for_no_pipe(tmp_path):
    """Whoever reads tokens anew would wait until somebody writes, and with it the program's end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (
        TokenSource(str(pipe)).read,
        lambda: token_headers(WatchSettings.load({"url": ("ws://127.0.0.1:1",), "token_file": str(pipe)})),
    ):
        with pytest.raises(SettingsError, match=f"cannot read {re.escape(str(pipe))}: it is no file"):
            read()
    for other in (tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match="no file"):
            open_regular(other)
