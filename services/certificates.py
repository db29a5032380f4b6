"""The files of TLS that settings name: looked at before anything heavy is loaded, renewed when they change, served."""

from __future__ import annotations

import asyncio
from socket import socket

import structlog
from aiohttp import web

from services.errors import SettingsError
from services.settings import ClientSettings
from stream.errors import BadCertificate
from stream.transport.listener import AT_ONCE, BACKLOG
from stream.transport.tls import ClientTls, OnFailure, RenewedContext, ServerTls

log = structlog.get_logger(__name__)

LOOK_S = 10.0  # between two looks at whether a file has changed
HANDSHAKE_S = 10.0  # that a peer may take for a handshake
SHUTDOWN_S = 5.0  # that a peer may take to read what is left, and to answer the end


def client_tls(settings: ClientSettings) -> ClientTls:
    """How the settings say to know a detector."""
    return ClientTls(settings.tls_ca, settings.tls_fingerprint, settings.tls_cert, settings.tls_key)


def check_files(tls: ClientTls | ServerTls | None) -> None:
    """Raises SettingsError where a file cannot be used."""
    if tls is None:
        return
    try:
        tls.context()
    except BadCertificate as error:
        raise SettingsError(str(error)) from None


async def server_context(tls: ServerTls | None, on_failure: OnFailure) -> RenewedContext | None:
    """What to listen with; None for none. `on_failure` is told of each failed handshake. Raises SettingsError."""
    if tls is None:
        return None
    try:
        return await asyncio.to_thread(RenewedContext, tls, on_failure)
    except BadCertificate as error:
        raise SettingsError(str(error)) from None


async def serve(runner: web.AppRunner, listener: socket, context: RenewedContext | None) -> asyncio.Server:
    """Let the runner's application answer what comes to the listener, over TLS if there is a context.

    As aiohttp's SockSite, which cannot say how long TLS may take: a peer that ends no handshake, or does not answer the
    word that ends TLS (RFC 8446, 6.1), would be held for a minute, or half of one. Close the server before the runner.
    """
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_server(
        runner.server,
        sock=listener,
        ssl=context,
        backlog=AT_ONCE,  # what asyncio accepts at a time, and how many it lets wait
        ssl_handshake_timeout=HANDSHAKE_S if context else None,
        ssl_shutdown_timeout=SHUTDOWN_S if context else None,
    )
    listener.listen(BACKLOG)
    return server


async def keep_renewed(context: RenewedContext | None) -> None:
    """Let files that have changed count for new connections, for ever; nothing to do without TLS."""
    while context is not None:
        await asyncio.sleep(LOOK_S)
        await renew(context)


async def renew(context: RenewedContext | None) -> None:
    """Let files that have changed count from now on; what cannot be used is told, and the old ones go on."""
    if context is None:
        return
    try:
        if await asyncio.to_thread(context.renew):
            log.info("certificate renewed")
    except BadCertificate as error:
        log.error("certificate not renewed", reason=str(error))
