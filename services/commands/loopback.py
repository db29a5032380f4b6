"""A detector in a process of its own on this machine, for the demo, the benchmark and the tests."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

from services.detector.settings import DetectorSettings
from services.environment import prepare_process
from services.errors import CannotListen, DetectorFailed, Exit, exit_code
from services.logs import configure_logs

# Settings of both ends that the environment may hold for others: here nobody else gets in.
OPEN_DETECTOR: Mapping[str, str | None] = {
    "host": "127.0.0.1",
    **dict.fromkeys(("tokens", "tls_cert", "tls_key", "tls_client_ca")),
}
OPEN_CAMERA: Mapping[str, None] = dict.fromkeys(
    ("token", "token_file", "tls_ca", "tls_fingerprint", "tls_cert", "tls_key")
)
START_TIMEOUT_S = (
    300.0  # importing torch, and compiling kernels once, on a busy machine; a death is seen at once
)
STOP_TIMEOUT_S = 10.0


@asynccontextmanager
async def local_detector(config: DetectorSettings, usual_port: int | None = None) -> AsyncIterator[str]:
    """Address (ws://host:port) of a detector that is ready; it ends with the context, or with this process.

    `config` has to be that of an open detector, on loopback; its port counts where `usual_port` is taken, or None.
    Raises DetectorFailed. To be called on the main thread.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads in a broken state
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(config, usual_port, theirs), name="splitcast-detector", daemon=True
    )
    # A terminal sends Ctrl-C to both processes; this one decides. The child inherits that it is held back, from its
    # first moment on; here it is not lost: it comes afterwards, or by another thread.
    resource_tracker.ensure_running()  # as it starts it would let the signal through
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    theirs.close()
    try:
        try:
            port = await asyncio.to_thread(_await_port, ours)
        except BaseException:
            process.kill()  # there is nothing to drain yet, and the thread that waits has to end
            raise
        yield f"ws://127.0.0.1:{port}"
    finally:
        ours.close()
        await asyncio.to_thread(process.join, STOP_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            await asyncio.to_thread(process.join)


def _await_port(pipe: Connection) -> int:
    try:
        if not pipe.poll(START_TIMEOUT_S):
            raise DetectorFailed(f"the detector was not ready within {START_TIMEOUT_S:g} s")
        answer = pipe.recv()
    except EOFError:
        raise DetectorFailed("the detector process died") from None
    if isinstance(answer, tuple):
        raise DetectorFailed(*answer)
    return int(answer)


def _serve(config: DetectorSettings, usual_port: int | None, pipe: Connection) -> None:
    prepare_process()
    configure_logs(config.logs)
    try:
        if usual_port is not None:
            with suppress(CannotListen):
                asyncio.run(_run_until_eof(config.model_copy(update={"port": usual_port}), pipe))
                return
        asyncio.run(_run_until_eof(config, pipe))
    except Exception as error:
        pipe.send((str(error) or type(error).__name__, exit_code(error) or Exit.FAILURE))
        raise SystemExit(1) from None


async def _run_until_eof(config: DetectorSettings, pipe: Connection) -> None:
    from services.detector.service import (
        Detector,  # torch is for this process to load, not for whoever starts it
    )
    from stream.tasks.background import run_with_background

    detector = Detector(config)
    loop = asyncio.get_running_loop()

    def on_parent_gone() -> None:
        loop.remove_reader(pipe.fileno())  # an end of file stays readable
        detector.stop()

    # The parent says nothing: the pipe becomes readable when it closes its end, or dies.
    loop.add_reader(pipe.fileno(), on_parent_gone)

    async def tell_port() -> None:
        await detector.ready.wait()
        pipe.send(await detector.port)

    await run_with_background(detector.run(), tell_port())
