"""Who gets in: each path by its role, before there is a WebSocket, and no longer than the token lasts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import ClientSession, WSServerHandshakeError
from multidict import CIMultiDict
from structlog.testing import capture_logs
from yarl import URL

from services.access.tokens import Role, new_token, token_hash
from services.detector import visit
from services.detector.gate import ACCESS
from services.detector.metrics import NO_BEARER, NOT_GRANTED, UNKNOWN_BEARER
from services.repeats import OWN_EVENT
from stream.errors import ConnectionLost
from stream.session.close_codes import CloseCode
from stream.session.messages import DETECTIONS_PROTOCOL, FEATURES_PROTOCOL, Waiting
from stream.tasks import backoff
from stream.transport.websocket import Link, connect
from tests.services.detector.peers import answer, closed
from tests.services.waiting import LIVENESS_S, until


def entry(name: str, token: str, role: Role, *streams: str) -> str:
    return (
        f'[[token]]\nname = "{name}"\nhash = "{token_hash(token)}"\nroles = ["{role}"]\n'
        f"streams = {list(streams)}\n"
    )


TOKENS = {"camera": new_token(), "consumer": new_token(), "metrics": new_token(), "page": new_token()}
STREAMS = {"camera": ["door"], "consumer": ["door"], "metrics": [], "page": ["*"]}
TABLE = "".join(entry(role, token, role, *STREAMS[role]) for role, token in TOKENS.items())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def status(http: str, path: str, **headers: str) -> int:
    """What a request gets, or an upgrade where the path is a WebSocket's; 101 where that is one."""
    url = URL(http + path, encoded=True)  # as it is, escapes too
    async with ClientSession(headers=headers) as session:
        if not path.partition("?")[0].endswith(("detections", "features")):
            async with session.get(url) as answer:
                return answer.status
        try:
            async with session.ws_connect(url):
                return 101
        except WSServerHandshakeError as refused:
            return refused.status


ALLOWED = [
    ("/v1/features", {"camera"}, 101),
    ("/v1/detections", {"consumer", "page"}, 101),
    ("/v1/streams/door/detections", {"consumer", "page"}, 101),
    ("/v1/streams", {"consumer", "page"}, 200),
    ("/v1/streams/door", {"consumer", "page"}, 404),  # it is not there yet
    ("/v1/streams/door/preview.jpg", {"consumer", "page"}, 404),
    ("/metrics", {"metrics"}, 200),
    ("/livez", {*TOKENS, None}, 200),
    ("/readyz", {*TOKENS, None}, 200),
    ("/nowhere", {*TOKENS, None}, 404),
]


async def test_each_path_asks_for_its_role(start_detector):
    async with start_detector(tokens=TABLE) as running:
        for path, roles, good in ALLOWED:
            for role in (*TOKENS, None):
                expected = good if role in roles else 403 if role else 401
                headers = bearer(TOKENS[role]) if role else {}
                assert (path, role, await status(running.http, path, **headers)) == (path, role, expected)


async def test_every_path_has_its_roles(start_detector):
    """One that is not in the table is nobody's."""
    async with start_detector() as running:
        assert {
            resource.canonical for resource in running.detector.application.router.resources()
        } <= ACCESS.keys()


async def test_another_stream_is_not_granted(start_detector):
    async with start_detector(tokens=TABLE) as running:
        for path in ("/v1/streams/porch", "/v1/streams/porch/preview.jpg", "/v1/streams/porch/detections"):
            assert await status(running.http, path, **bearer(TOKENS["consumer"])) == 403
            assert await status(running.http, path, **bearer(TOKENS["page"])) in {404, 101}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        TOKENS["page"],
        f"Bearer {TOKENS['page']}x",
        "Bearer \u00e9",
    ],
)
async def test_what_is_no_token_is_answered_401_and_told_how_to_send_one(start_detector, header):
    async with start_detector(tokens=TABLE) as running, ClientSession() as session:
        async with session.get(f"{running.http}/v1/streams", headers={"Authorization": header}) as answer:
            assert (answer.status, answer.content_type) == (401, "application/json")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        async with session.get(f"{running.http}/v1/streams?token={TOKENS['page']}") as answer:
            assert answer.status == 401


async def test_who_sent_a_token_is_told_that_it_is_none(start_detector):
    """RFC 6750, section 3.1; the scheme's name may be written as one likes (RFC 9110, 11.1)."""
    async with start_detector(tokens=TABLE) as running, ClientSession(running.http) as session:
        for header, status, is_told in (
            ({}, 401, False),
            (bearer(new_token()), 401, True),
            ({"Authorization": f"bEARER {TOKENS['consumer']}"}, 200, False),
        ):
            async with session.get("/v1/streams", headers=header) as answer:
                told = answer.headers.get("WWW-Authenticate", "")
                assert (answer.status, 'error="invalid_token"' in told) == (status, is_told)


async def test_nothing_is_kept_of_requests_that_are_answered(start_detector):
    async with start_detector(tokens=TABLE) as running:
        for path, expected in (("/v1/streams", 200), ("/v1/streams/door", 404), ("/v1/detections", 101)):
            assert await status(running.http, path, **bearer(TOKENS["consumer"])) == expected
        await until(lambda: not running.detector.gate._inside)


async def test_refusals_are_counted_and_told_without_the_token(start_detector, capsys):
    async with start_detector(tokens=TABLE) as running:
        await status(running.http, "/v1/features")
        await status(running.http, "/v1/features", **bearer(unknown := new_token()))
        await status(running.http, "/v1/features", **bearer(TOKENS["page"]))
        sample = running.detector.statistics.metrics.registry.get_sample_value
        for reason in (NO_BEARER, UNKNOWN_BEARER, NOT_GRANTED):
            assert sample("splitcast_detector_connections_refused_total", {"reason": reason}) == 1
        async with ClientSession(headers=bearer(TOKENS["metrics"])) as session:
            exported = await (await session.get(f"{running.http}/metrics")).text()
    told = capsys.readouterr().out
    assert [told.count(f"reason={reason} ") for reason in (NO_BEARER, UNKNOWN_BEARER, NOT_GRANTED)] == [
        1,
        1,
        1,
    ]
    for token in (unknown, *TOKENS.values()):
        assert token not in told + exported
        assert token_hash(token) not in told + exported


async def test_who_has_no_token_makes_no_websocket(start_detector, monkeypatch):
    """Nor its buffers: the upgrade is refused before anything of ours handles it."""
    async with start_detector(tokens=TABLE) as running:
        handled = []
        monkeypatch.setattr("services.detector.endpoint.ServerWebSocket", handled.append)
        monkeypatch.setattr("services.detector.subscribers.ServerWebSocket", handled.append)
        for path in ("/v1/features", "/v1/detections"):
            assert await status(running.http, path) == 401
        assert not handled


async def test_a_reload_lets_new_tokens_in_and_old_ones_out(start_detector, tmp_path: Path):
    file, later = tmp_path / "tokens.toml", new_token()
    file.write_text(TABLE)
    async with start_detector(tokens=str(file)) as running:
        assert await status(running.http, "/metrics", **bearer(later)) == 401
        file.write_text(entry("later", later, "metrics"))
        await running.detector.reload()
        assert await status(running.http, "/metrics", **bearer(later)) == 200
        assert await status(running.http, "/metrics", **bearer(TOKENS["metrics"])) == 401


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?stream=door", 101),
        ("", 101),  # one that is not told may be any
        ("?stream=porch", 403),
        ("?stream=", 403),
        ("?stream=door&stream=porch", 400),
        ("?stream=door&stream=door", 400),
        ("?x=1;stream=porch&stream=door", 400),
        ("?x=1;stream=door", 400),
        ("?stream=door;y=1", 400),
        ("?stream=%64oor", 400),
        ("?str%65am=door", 400),
        ("?x=%3B&stream=door", 101),
    ],
)
async def test_a_camera_that_asks_for_anothers_stream_gets_no_websocket(start_detector, query, expected):
    own = new_token()
    async with start_detector(tokens=entry("own", own, "camera", "door")) as running:
        assert await status(running.http, f"/v1/features{query}", **bearer(own)) == expected


async def test_a_name_that_is_another_cameras_gets_no_websocket(start_detector):
    fleet, own = new_token(), new_token()
    table = entry("own", own, "camera", "door") + entry("fleet", fleet, "camera", "*")
    async with start_detector(tokens=table) as running:
        assert await status(running.http, "/v1/features?stream=door", **bearer(fleet)) == 403
        assert await status(running.http, "/v1/features?stream=porch", **bearer(fleet)) == 101
        metric = running.detector.statistics.metrics.registry.get_sample_value
        assert metric("splitcast_detector_connections_refused_total", {"reason": "not_granted"}) == 1


async def test_a_faulty_file_changes_nothing(start_detector, tmp_path: Path, capsys):
    file = tmp_path / "tokens.toml"
    file.write_text(TABLE)
    async with start_detector(tokens=str(file)) as running:
        file.write_text(TABLE + "[[token]]\n")
        await running.detector.reload()
        assert "those read before hold on" in capsys.readouterr().out
        assert await status(running.http, "/metrics", **bearer(TOKENS["metrics"])) == 200


@asynccontextmanager
async def camera_link(url: str, token: str) -> AsyncIterator[Link]:
    async with connect(f"{url}/v1/features", FEATURES_PROTOCOL, headers=bearer(token)) as link:
        yield link


@pytest.mark.parametrize("waits", [False, True])
async def test_a_camera_gets_no_name_that_its_token_lacks(start_detector, make_hello, waits):
    own, fleet = new_token(), new_token()
    table = entry("own", own, "camera", "door") + entry("fleet", fleet, "camera", "*")
    async with start_detector(tokens=table) as running:
        for token, stream, words in ((own, "porch", "is not granted"), (fleet, "door", "another token")):
            async with camera_link(running.url, token) as link:
                waiting = Waiting(stream=stream, session="5e" * 16, source="0", source_state="opening")
                await link.send((waiting if waits else make_hello(stream=stream)).text())
                lost = await closed(link)
            assert (lost.code, words in lost.reason) == (CloseCode.STREAM_NOT_GRANTED, True), lost.reason
        async with camera_link(running.url, fleet) as link:
            await link.send(make_hello(stream="porch").text())
            assert (await answer(link))["type"] == "welcome"
        sample = running.detector.statistics.metrics.registry.get_sample_value
        reason = {"reason": "stream_not_granted"}
        assert sample("splitcast_detector_connections_refused_total", reason) == 2


async def test_what_comes_late_is_let_through_by_its_cameras_token_alone(start_detector, make_hello):
    own, fleet = new_token(), new_token()
    table = entry("own", own, "camera", "door") + entry("fleet", fleet, "camera", "*")
    late = make_hello(stream="door.late", late=True, session="5e" * 16)
    async with start_detector(tokens=table) as running:
        url = f"{running.url}/v1/features?stream=door"
        async with connect(url, FEATURES_PROTOCOL, headers=bearer(own)) as link:
            await link.send(late.text())
            assert (await answer(link))["type"] == "welcome"
        async with camera_link(running.url, fleet) as link:
            await link.send(late.text())
            assert (await closed(link)).code == CloseCode.STREAM_NOT_GRANTED
        async with camera_link(running.url, fleet) as link:
            await link.send(make_hello(stream="porch.late").text())
            assert (await closed(link)).code == CloseCode.BAD_MESSAGE


async def test_a_tokens_owner_has_its_name_back_from_a_ghost(start_detector, make_hello, monkeypatch):
    """A connection that nothing comes from, and a camera that has lost its session."""
    monkeypatch.setattr(visit, "GHOST_S", 0.0)
    async with (
        start_detector(tokens=TABLE) as running,
        camera_link(running.url, TOKENS["camera"]) as ghost,
        camera_link(running.url, TOKENS["camera"]) as owner,
    ):
        for link, session in ((ghost, "5e" * 16), (owner, "0a" * 16)):
            await link.send(make_hello(session=session).text())
            assert (await answer(link))["type"] == "welcome"
        assert (await closed(ghost)).code == CloseCode.REPLACED


@pytest.mark.parametrize("path", ["/v1/features", "/v1/streams", "/metrics", "/livez"])
async def test_two_tokens_are_none(start_detector, path):
    """A proxy may have checked the other one."""
    async with start_detector(tokens=TABLE) as running, ClientSession() as session:
        both = [("Authorization", f"Bearer {TOKENS[role]}") for role in ("metrics", "consumer")]
        async with session.get(running.http + path, headers=CIMultiDict(both)) as answer:
            assert answer.status == 400
            assert "more than one Authorization header" in await answer.text()
        sample = running.detector.statistics.metrics.registry.get_sample_value
        assert sample("splitcast_detector_connections_refused_total", {"reason": "bad_request"}) == 1


async def test_each_reload_is_told(start_detector, tmp_path: Path):
    """Whoever reloads looks for that line, however often it was there."""
    file = tmp_path / "tokens.toml"
    file.write_text(TABLE)
    async with start_detector(tokens=str(file)) as running:
        with capture_logs() as logs:
            await running.detector.reload()
            file.write_text("no TOML")
            await running.detector.reload()
    told = [line for line in logs if line["event"].startswith("tokens")]
    assert [line["event"].partition(":")[0] for line in told] == ["tokens read", "tokens not read"]
    assert all(line.items() >= OWN_EVENT.items() for line in told)


async def test_a_revoked_tokens_connections_are_closed(start_detector, tmp_path: Path):
    file = tmp_path / "tokens.toml"
    file.write_text(TABLE)
    async with (
        start_detector(tokens=str(file)) as running,
        ClientSession(headers=bearer(TOKENS["consumer"])) as revoked,
        ClientSession(headers=bearer(TOKENS["page"])) as kept,
        ClientSession(headers=bearer(TOKENS["camera"])) as camera,
        revoked.ws_connect(f"{running.http}/v1/detections") as leaves,
        kept.ws_connect(f"{running.http}/v1/detections") as stays,
        camera.ws_connect(f"{running.http}/v1/features", protocols=("splitcast.features.v1",)) as link,
    ):
        await until(lambda: len(running.detector.broadcast) == 2)
        file.write_text(entry("page", TOKENS["page"], "page", "*"))
        await running.detector.reload()
        async with asyncio.timeout(LIVENESS_S):
            for closed in (leaves, link):
                async for _ in closed:
                    pass
                assert closed.close_code == 4401
        assert not stays.closed
        assert len(running.detector.broadcast) == 1
        sample = running.detector.statistics.metrics.registry.get_sample_value
        assert sample("splitcast_detector_subscribers_closed_total", {"code": "4401"}) == 1
        consumer = {"reason": "token_revoked"}  # the camera said no hello, and was refused
        assert sample("splitcast_detector_connections_refused_total", consumer) == 1


async def test_no_name_is_kept_for_a_token_that_was_revoked_while_its_camera_was_away(
    start_detector, make_hello, tmp_path: Path
):
    gone, stays, file = new_token(), new_token(), tmp_path / "tokens.toml"
    kept = entry("stays", stays, "camera", "*")
    file.write_text(kept + entry("gone", gone, "camera", "*"))
    async with start_detector(tokens=str(file)) as running:
        async with camera_link(running.url, gone) as link:
            await link.send(make_hello(session="5e" * 16).text())
            assert (await answer(link))["type"] == "welcome"
            link.abort()
        await until(lambda: not running.detector.streams.is_connected("door"))
        async with camera_link(running.url, stays) as link:
            await link.send(make_hello(session="0a" * 16).text())
            assert (await closed(link)).code == CloseCode.STREAM_TAKEN
        file.write_text(kept)
        await running.detector.reload()
        async with camera_link(running.url, stays) as link:
            await link.send(make_hello(session="0a" * 16).text())
            assert (await answer(link))["type"] == "welcome"


async def test_a_camera_comes_with_its_token_and_again_with_the_next(
    start_detector, make_camera, tmp_path: Path, capsys, monkeypatch
):
    """Its first is unknown, its second is revoked while it streams; the file is read for each connection."""
    monkeypatch.setattr(backoff, "DENIED_S", (0.1, 0.1))
    tokens, own, next_token = tmp_path / "tokens.toml", tmp_path / "door.token", new_token()
    tokens.write_text(TABLE)
    own.write_text(unknown := new_token())
    async with start_detector(tokens=str(tokens)) as running:
        camera = make_camera(running.url, token_file=own, loop=True, realtime=True)
        task = asyncio.ensure_future(camera.run())
        refused = running.detector.statistics.metrics.refused.labels(UNKNOWN_BEARER)
        await until(refused._value.get)
        own.write_text(TOKENS["camera"])
        await until(lambda: camera.statistics.frame_counts.detected)
        tokens.write_text(entry("next", next_token, "camera", "door"))
        own.write_text(next_token)
        await running.detector.reload()
        await until(lambda: running.detector.statistics.metrics.connections._value.get() == 2)
        camera.stop()
        await asyncio.wait_for(task, LIVENESS_S)
        counts = camera.statistics.frame_counts
        assert counts.captured == counts.detected + counts.dropped_total
    told = capsys.readouterr().out
    assert not [token for token in (unknown, TOKENS["camera"], next_token) if token in told]


async def test_a_consumer_is_told_of_its_streams_alone(start_detector, make_camera):
    desk, yard, camera = new_token(), new_token(), new_token()
    table = entry("desk", desk, "consumer", "door", "porch*") + entry("yard", yard, "consumer", "yard")
    heard: dict[str, list[dict]] = {"desk": [], "yard": []}

    async def listen(name: str, token: str) -> None:
        async with connect(
            f"{running.url}/v1/detections", DETECTIONS_PROTOCOL, headers=bearer(token)
        ) as link:
            async for text in link:
                heard[name].append(json.loads(text))

    async with start_detector(tokens=table + entry("camera", camera, "camera", "*")) as running:
        listening = [
            asyncio.ensure_future(listen(name, token)) for name, token in (("desk", desk), ("yard", yard))
        ]
        await until(lambda: len(running.detector.broadcast) == 2)
        for name in ("door", "porch-1", "yard"):
            sending = make_camera(running.url, stream=name, token=camera)
            await asyncio.wait_for(sending.run(), LIVENESS_S)
        async with ClientSession(headers=bearer(yard)) as session:
            listed = await (await session.get(f"{running.http}/v1/streams")).json()
            assert [stream["name"] for stream in listed["streams"]] == ["yard"]
        late: list[dict] = []
        heard["late"] = late
        listening.append(asyncio.ensure_future(listen("late", desk)))
        await until(lambda: len(late) >= 2)
    with suppress(ConnectionLost):
        await asyncio.gather(*listening)
    for name, streams in (("desk", {"door", "porch-1"}), ("yard", {"yard"}), ("late", {"door", "porch-1"})):
        assert {message["stream"] for message in heard[name]} == streams
    assert {message["type"] for message in heard["yard"]} >= {"detections", "stream"}
