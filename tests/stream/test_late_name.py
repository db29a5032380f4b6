"""Names of streams that come late."""

from __future__ import annotations

import re

from stream.late_name import MAX_CHARACTERS, camera_name, is_late, late_name
from stream.session.messages import Waiting


def test_a_late_name_leads_back_to_its_camera():
    assert late_name("door") == "door.late"
    assert camera_name("door.late") == camera_name("door") == "door"
    assert is_late("door.late")
    assert not is_late("door")
    assert not is_late("door.later")


def test_the_longest_name_that_may_come_late_is_a_stream_name():
    name = late_name("d" * MAX_CHARACTERS)
    waiting = Waiting(stream=name, session="5e" * 16, source="", source_state="open")
    assert len(waiting.stream) == 64
    assert re.fullmatch(r"d{59}\.late", name)
