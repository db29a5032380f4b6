from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from services import certificates
from services.certificates import check_files, keep_renewed, renew, server_context
from services.errors import SettingsError
from stream.transport.tls import ServerTls
from tests.certificates import Authority
from tests.services.waiting import until


@pytest.fixture
def server(tmp_path) -> ServerTls:
    return ServerTls(Authority(tmp_path).sign())


async def test_no_certificate_is_no_tls(server):
    check_files(None)
    assert await server_context(None, print) is None
    await renew(None)
    await keep_renewed(None)


async def test_a_file_that_cannot_be_used_is_a_wrong_setting(server):
    server.cert.unlink()
    with pytest.raises(SettingsError, match="--tls-cert: cannot read"):
        check_files(server)
    with pytest.raises(SettingsError, match="--tls-cert: cannot read"):
        await server_context(server, print)


async def test_files_are_looked_at_again_and_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(certificates, "LOOK_S", 0.01)
    context = await server_context(server, print)
    with capture_logs() as logs:
        looking = asyncio.ensure_future(keep_renewed(context))
        try:
            server.cert.write_text("half")
            await until(lambda: [entry["event"] for entry in logs] == ["certificate not renewed"])
            Authority(tmp_path).sign()
            await until(lambda: [entry["event"] for entry in logs][1:] == ["certificate renewed"])
        finally:
            looking.cancel()
    assert "no certificate and key" in logs[0]["reason"]
