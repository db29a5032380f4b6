"""The command `splitcast`: a table of commands. What a command needs is imported when it is named.

Nothing here loads anything that takes time: `run` prepares the process before anything does, `--help` is there at
once, and a signal finds a program that knows what to do with it.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from services.environment import prepare_process
from services.errors import Exit, ServiceError, exit_code, words_of
from services.extras import lacking
from services.signals import await_reloads, end_on_signals

if TYPE_CHECKING:
    from services.command_settings import CommandSettings


@dataclass(frozen=True, slots=True)
class Command:
    """A command's parts, as "module:name"."""

    settings: str  # a CommandSettings
    run: str  # takes these settings, and returns an exit code if it is not OK; imported once they are right
    help: str
    extra: str | None = None  # of pyproject.toml, that it needs always

    def parse(self, arguments: Sequence[str], name: str) -> CommandSettings:
        """The settings that the arguments after the command's name say. Raises SettingsError, SystemExit after help."""
        settings: type[CommandSettings] = _imported(self.settings)
        return settings.parse(arguments, f"splitcast {name}", self.help)

    def __call__(self, settings: CommandSettings, name: str) -> Exit:
        try:
            settings.check_machine()
            run: Callable[[CommandSettings], Exit | None] = _imported(self.run)
            return run(settings) or Exit.OK
        except ModuleNotFoundError as error:
            raise lacking(error, f"splitcast {name}", self.extra) or error from None
        except ServiceError as error:
            error.args = (settings.as_given(str(error)),)
            raise


COMMANDS = {
    "camera": Command(
        "services.commands.camera_settings:CameraProgramSettings",
        "services.commands.camera:run_camera",
        "stream features of a camera or file to a detector",
    ),
    "detector": Command(
        "services.commands.detector_settings:DetectorProgramSettings",
        "services.commands.detector:run_detector",
        "finish the network and publish detections",
    ),
    "watch": Command(
        "services.commands.settings:WatchSettings",
        "services.commands.watch:run_watch",
        "print detections as they are published",
    ),
    "record": Command(
        "services.commands.record_settings:RecordSettings",
        "services.commands.record:run_record",
        "keep a camera's packets in files, without a detector",
    ),
    "replay": Command(
        "services.replay.settings:ReplaySettings",
        "services.replay.replay:run_replay",
        "send a recording's packets to a detector",
    ),
    "recording show": Command(
        "services.replay.settings:RecordingShowSettings",
        "services.replay.show:run_recording_show",
        "print what the files of a recording hold",
    ),
    "demo": Command(
        "services.commands.settings:DemoSettings",
        "services.commands.demo:run_demo",
        "camera and detector on this machine, over a real loopback WebSocket",
    ),
    "doctor camera": Command(
        "services.doctor.settings:DoctorCameraSettings",
        "services.doctor.run:run_doctor_camera",
        "check this machine, its source and its way to the detector with a camera's settings, and say what to change",
    ),
    "doctor detector": Command(
        "services.doctor.settings:DoctorDetectorSettings",
        "services.doctor.run:run_doctor_detector",
        "check this machine with a detector's settings, and say what to change",
    ),
    "chaos": Command(
        "services.chaos.settings:ChaosSettings",
        "services.chaos.service:run_chaos",
        "a proxy that breaks connections and messages, to see what survives it",
    ),
    "points": Command(
        "services.commands.settings:PointsSettings",
        "services.commands.points:run_points",
        "list the split points of a network",
    ),
    "export": Command(
        "services.commands.settings:ExportSettings",
        "services.commands.export:run_export",
        "write both halves of a network as ONNX models, for --model DIR and for other programs",
    ),
    "advise": Command(
        "services.evaluation.settings:AdviseSettings",
        "services.evaluation.advise:run_advise",
        "where to split a network for a link, and whether to split it at all",
        extra="evaluate",
    ),
    "evaluate": Command(
        "services.evaluation.settings:EvaluateSettings",
        "services.evaluation.evaluate:run_evaluate",
        "measure what codecs cost in bytes and in detections",
        extra="evaluate",
    ),
    "calibrate": Command(
        "services.calibration.settings:CalibrateSettings",
        "services.calibration.calibrate:run_calibrate",
        "fit the feature codec to a network on sample images",
        extra="torch",
    ),
    "profile show": Command(
        "services.commands.settings:ProfileShowSettings",
        "services.commands.profile_show:run_profile_show",
        "print what a profile was made from and holds",
    ),
    "token create": Command(
        "services.commands.settings:TokenCreateSettings",
        "services.commands.token:run_token_create",
        "make a token that a detector asks for, and print it this once",
    ),
    "token list": Command(
        "services.commands.settings:TokenListSettings",
        "services.commands.token:run_token_list",
        "show what each token grants",
    ),
    "token revoke": Command(
        "services.commands.settings:TokenRevokeSettings",
        "services.commands.token:run_token_revoke",
        "let a token grant nothing any more",
    ),
    "study": Command(
        "services.study.settings:StudySettings",
        "services.study.run:run_study",
        "reproduce the paper's tables and figures, and go on from there",
        extra="study",
    ),
    "encode": Command(
        "services.commands.settings:EncodeSettings",
        "services.commands.transcode:run_encode",
        "encode tensors of an .npz file, arrays named by layer",
    ),
    "decode": Command(
        "services.commands.settings:DecodeSettings",
        "services.commands.transcode:run_decode",
        "decode packets of an .spc file into an .npz file",
    ),
    "bench pipeline": Command(
        "services.bench.settings:BenchPipelineSettings",
        "services.bench.pipeline:run_bench_pipeline",
        "frames/s of camera and detector over loopback against the bare loop model(frame)",
    ),
    "bench load": Command(
        "services.bench.settings:BenchLoadSettings",
        "services.bench.load:run_bench_load",
        "what a detector holds of many simulated cameras, and what each frame costs it",
    ),
    "bench sizing": Command(
        "services.bench.settings:BenchSizingSettings",
        "services.bench.sizing:run_bench_sizing",
        "what so many cameras need, by arithmetic from what bench load measured",
    ),
    "bench device": Command(
        "services.bench.settings:BenchDeviceSettings",
        "services.bench.device:run_bench_device",
        "what a GPU computes beside the CPU, how fast, and how many streams it holds",
        extra="evaluate",
    ),
}
GROUPS = {
    "doctor": "check a machine before it is a camera or a detector",
    "profile": "calibration profiles of the feature codec",
    "recording": "packets that were kept in files",
    "token": "who may do what at a detector",
    "bench": "measure camera and detector on this machine",
}


SERVICES = ("camera", "detector", "record")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    from services.logs import LogSettings, configure_logs

    arguments = sys.argv[1:] if arguments is None else arguments
    logs = LogSettings(early_log_format(arguments))
    try:
        configure_logs(logs)
        name, settings = parse(arguments)
        logs = settings.logs
        configure_logs(logs)
        code = COMMANDS[name](settings, name)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return Exit.OK
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        _close_output()
        return Exit.OK
    except Exception as error:
        return _tell(error, logs.style)


def early_log_format(arguments: Sequence[str]) -> str:
    """How a command logs until its settings are read: as a flag or a variable of theirs says."""
    if not arguments or arguments[0] not in SERVICES:
        return "text"
    flag = "--log-format"
    told = [after for before, after in pairwise(arguments) if before == flag]
    told += [word.partition("=")[2] for word in arguments if word.startswith(f"{flag}=")]
    told += [os.environ.get("SPLITCAST_LOG_FORMAT", "")]
    return next((style for style in told if style in ("text", "json")), "auto")


def _tell(error: Exception, style: str) -> int:
    """Say what ended the command, as its logs are written, and return the exit code. A defect of ours is raised."""
    from services.logs import as_text, log_fatal
    from services.printable import printable_lines
    from stream.redact import redact_url

    code = exit_code(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        _close_output()  # it may be what is full, and be flushed once more
    if not as_text(style):
        log_fatal(error, Exit.FAILURE if code is None else code, defect=code is None)
    elif code is None:
        raise error
    else:
        print(f"splitcast: {redact_url(printable_lines(words_of(error)))}", file=sys.stderr)
    return Exit.FAILURE if code is None else code


def _close_output() -> None:
    """Let what is still to be written go nowhere; Python would complain once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As `sys.excepthook`: the traceback without credentials, which may stand in what an error says."""
    import traceback

    from services.printable import printable_lines
    from stream.redact import redact_url

    lines = "".join(traceback.format_exception(kind, error, trace))
    print(redact_url(printable_lines(lines)), end="", file=sys.stderr)


def run() -> None:
    """The console script: `main`, and the end of the process even where a thread still works.

    A download or a stalled read may take minutes, and the interpreter would wait for it. A service that has stopped is
    over at once: taking apart what its libraries hold takes a second, many on a busy machine, of the ten that who
    stopped it may wait before he kills it.
    """
    is_service = sys.argv[1:2] and sys.argv[1] in SERVICES
    if is_service:
        end_on_signals(early_log_format(sys.argv[1:]))
    if sys.argv[1:2] == ["detector"]:
        await_reloads()
    prepare_process()
    threading.excepthook, sys.excepthook = _log_failed_thread, tell_defect
    sys.unraisablehook = _log_unraisable
    code = main()
    if is_service or not _threads_end():
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _threads_end() -> bool:
    """Whether every thread that the interpreter would wait for is over within a moment."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(timeout=0.2)
            if thread.is_alive():
                return False
    return True


def _log_failed_thread(failed: threading.ExceptHookArgs) -> None:
    from services.logs import log_failed_thread

    log_failed_thread(failed)


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    from services.logs import log_unraisable

    log_unraisable(unraisable)


def parse(arguments: Sequence[str]) -> tuple[str, CommandSettings]:
    """The name of the command, and its settings.

    Raises SettingsError where a setting is wrong or unknown, SystemExit after help or where a command is unknown.
    """
    for words in (1, 2):
        name = " ".join(arguments[:words])
        if command := COMMANDS.get(name):
            return name, command.parse(arguments[words:], name)
    _overview().parse_args(arguments)
    raise AssertionError(f"{arguments} names no command, and was not refused")


class _OverviewParser(ArgumentParser):
    """argparse's, which would repeat a URL that stands where a command should."""

    def error(self, message: str) -> NoReturn:
        from stream.redact import redact_url

        super().error(redact_url(message))


def _overview() -> ArgumentParser:
    """Help and complaints where no command is named."""
    from importlib.metadata import version

    parser = _OverviewParser(
        prog="splitcast",
        description="Split video detection: the camera runs the first layers and sends features, not pixels.",
    )
    parser.add_argument("--version", action="version", version=f"splitcast {version('splitcast')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    groups: dict[str, Any] = {}
    for name, command in COMMANDS.items():
        group, _, member = name.rpartition(" ")
        if group and group not in groups:
            parent = commands.add_parser(group, help=GROUPS[group], description=GROUPS[group])
            groups[group] = parent.add_subparsers(title="commands", required=True, metavar="COMMAND")
        groups.get(group, commands).add_parser(member, help=command.help)
    return parser


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


if __name__ == "__main__":
    run()
