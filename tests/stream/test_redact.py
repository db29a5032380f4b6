from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.redact import redact_url


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("rtsp://user:p%40ss@host/", "rtsp://***@host/"),
        ("rtsp://user:p@ss@host:554/stream", "rtsp://***@host:554/stream"),
        ("rtsp://user:p:a/s?s#@host/stream", "rtsp://***@host/stream"),
        ("rtsp://user@host", "rtsp://***@host"),
        ("RTSP://user:secret@host", "RTSP://***@host"),
        ("rtsp://:secret@[::1]:554/a", "rtsp://***@[::1]:554/a"),
        ("wss://token@host/camera", "wss://***@host/camera"),
        ("rtsp:/user:secret@host/stream", "rtsp:/***@host/stream"),
        ("no file rtsp:user:secret@host/stream", "no file rtsp:***@host/stream"),
        ("url=rtsp://a:b@host", "url=rtsp://***@host"),
        ("\x1b[35mhttp://host/?token=secret\x1b[0m", "\x1b[35mhttp://host/?token=***\x1b[0m"),
        ("cannot open 'rtsp://a:b@host/x': refused", "cannot open 'rtsp://***@host/x': refused"),
        ("from rtsp://a:b@one/x to http://c:d@two/y", "from rtsp://***@one/x to http://***@two/y"),
        ("http://host/?user=admin&password=secret&size=2", "http://host/?user=***&password=***&size=2"),
        ("http://host/?size=2&PWD=secret", "http://host/?size=2&PWD=***"),
        ("http://host/?access_token=secret", "http://host/?access_token=***"),
        ("http://host/?pass=a#b", "http://host/?pass=***"),
        (
            "rtsp://host:554/user=admin&password=secret&channel=1",
            "rtsp://host:554/user=***&password=***&channel=1",
        ),
        ("GET /spc_aaaaaaaa-_ HTTP/1.1 spc_bbbbbbbb9", "GET /spc_*** HTTP/1.1 spc_***"),
        ("rtsp://host/user=admin_password=secret_channel=1.sdp", "rtsp://host/user=***"),
    ],
)
def test_hides_credentials(text, redacted):
    assert redact_url(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rtsp://host:554/stream?channel=1&subtype=0",
        "/data/clip.mp4",
        "somebody@example.org called",
        "at 12:30 somebody@example.org called",
        "no answer for 5.0 s",
        "Connection to tcp://127.0.0.1:8554?timeout=0 failed: Connection refused",
    ],
)
def test_leaves_the_rest_alone(text):
    assert redact_url(text) == text


# Anything but white space and control characters, which end a URL.
secrets = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=20)
words = st.text(string.ascii_letters + string.digits + ".-", min_size=1, max_size=12)
schemes = st.sampled_from(["rtsp", "rtsps", "http", "https", "wss", "udp"])


@given(scheme=schemes, user=secrets, password=secrets, host=words, path=words)
@example(scheme="rtsp", user="a", password="/@:?#&'\"", host="h", path="p")
@example(scheme="rtsp", user="a", password="://", host="h", path="p")
def test_no_password_survives(scheme, user, password, host, path):
    url = f"{scheme}://{user}:{password}@{host}/{path}"
    assert redact_url(f"lost {url} again") == f"lost {scheme}://***@{host}/{path} again"


@given(
    scheme=schemes,
    name=st.sampled_from(["password", "pass", "pwd", "token", "user", "Passwd", "api_key", "auth"]),
    secret=secrets.filter(lambda secret: "@" not in secret and "&" not in secret),
    host=words,
)
def test_no_parameter_survives(scheme, name, secret, host):
    url = f"{scheme}://{host}/path?{name}={secret}&size=1"
    assert redact_url(f"lost {url} again") == f"lost {scheme}://{host}/path?{name}=***&size=1 again"


@given(st.text())
def test_is_idempotent(text):
    assert redact_url(redact_url(text)) == redact_url(text)
