"""What a doctor says of what it found."""

from __future__ import annotations

import json

import pytest

from services.access.tokens import new_token
from services.doctor.examination import Result
from services.doctor.finding import doubtful, fine, wrong
from services.doctor.report import as_json, line, summary, verdict
from services.errors import Exit

WELL = Result("limits", fine("many files", limit=1024), 0.1)
WORSE = Result("clock", doubtful("2 s ahead", "timedatectl set-ntp true"), 0.1)
BAD = Result("port", wrong("in use", "another --port"), 0.1)


def test_a_line_has_how_it_is_what_was_measured_and_what_to_change():
    assert line(WELL) == "ok       limits       many files"
    assert line(BAD) == "error    port         in use -> another --port"


@pytest.mark.parametrize("secret", [new_token(), "rtsp://root:hunter2@camera/1"])
def test_no_credentials_are_shown(secret):
    result = Result("source", wrong(f"{secret} does not open", f"look at {secret}"), 0.1)
    for text in (line(result), as_json("camera", [result], 1)):
        assert secret not in text
        assert "hunter2" not in text


def test_what_others_say_moves_no_cursor():
    result = Result("detector", wrong("\x1b[2Jno\ndetector"), 0.1)
    assert line(result) == r"error    detector     \x1b[2Jno\ndetector"


@pytest.mark.parametrize(
    ("results", "planned", "code", "words"),
    [
        ([WELL], 1, Exit.OK, "0 errors, 0 warnings, 1 ok"),
        ([WELL, WORSE], 2, Exit.OK, "0 errors, 1 warning, 1 ok"),
        ([BAD, WELL], 2, Exit.FAILURE, "1 error, 0 warnings, 1 ok"),
        ([WELL], 3, Exit.FAILURE, "0 errors, 0 warnings, 1 ok, interrupted: 2 not checked"),
    ],
    ids=["well", "warned", "wrong", "interrupted"],
)
def test_the_verdict(results, planned, code, words):
    assert verdict(results, planned) is code
    assert summary(results, planned) == words
    told = json.loads(as_json("camera", results, planned))
    assert (told["ok"], told["interrupted"]) == (code is Exit.OK, len(results) < planned)
    assert [check["check"] for check in told["checks"]] == [result.check for result in results]


def test_json_has_the_numbers():
    assert json.loads(as_json("camera", [WELL], 1))["checks"][0]["facts"] == {"limit": 1024}
