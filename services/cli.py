"""The command `splitcast`: a table of commands. What a command needs is imported when it is named.

Nothing here loads numpy or torch: `run` prepares the process before anything does, and `--help` is there at once.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

from services.command_settings import CommandSettings
from services.environment import prepare_process
from services.errors import Exit, exit_code
from services.logs import configure_logs


@dataclass(frozen=True, slots=True)
class Command:
    """A command's parts, as "module:name"."""

    settings: str  # a CommandSettings
    run: str  # takes these settings, and returns an exit code if it is not OK; imported once they are right
    help: str

    def parse(self, arguments: Sequence[str], name: str) -> CommandSettings:
        """The settings that the arguments after the command's name say. Raises SettingsError or SystemExit."""
        settings: type[CommandSettings] = _imported(self.settings)
        return settings.parse(arguments, f"splitcast {name}", self.help)

    def __call__(self, settings: CommandSettings) -> Exit:
        run: Callable[[CommandSettings], Exit | None] = _imported(self.run)
        return run(settings) or Exit.OK


COMMANDS = {
    "camera": Command(
        "services.camera.settings:CameraSettings",
        "services.commands.serve:run_camera",
        "stream features of a camera or file to a detector",
    ),
    "detector": Command(
        "services.detector.settings:DetectorSettings",
        "services.commands.serve:run_detector",
        "finish the network and publish detections",
    ),
    "watch": Command(
        "services.commands.settings:WatchSettings",
        "services.commands.watch:run_watch",
        "print detections as they are published",
    ),
    "demo": Command(
        "services.commands.settings:DemoSettings",
        "services.commands.demo:run_demo",
        "camera and detector on this machine, over a real loopback WebSocket",
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
    "advise": Command(
        "services.evaluation.settings:AdviseSettings",
        "services.evaluation.advise:run_advise",
        "where to split a network for a link, and whether to split it at all",
    ),
    "evaluate": Command(
        "services.evaluation.settings:EvaluateSettings",
        "services.evaluation.evaluate:run_evaluate",
        "measure what codecs cost in bytes and in detections",
    ),
    "calibrate": Command(
        "services.calibration.settings:CalibrateSettings",
        "services.calibration.calibrate:run_calibrate",
        "fit the feature codec to a network on sample images",
    ),
    "profile show": Command(
        "services.commands.settings:ProfileShowSettings",
        "services.commands.profile_show:run_profile_show",
        "print what a profile was made from and holds",
    ),
    "study": Command(
        "services.study.settings:StudySettings",
        "services.study.run:run_study",
        "reproduce the paper's tables and figures, and go on from there",
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
        "services.commands.settings:BenchPipelineSettings",
        "services.commands.bench:run_bench_pipeline",
        "frames/s of camera and detector over loopback against the bare loop model(frame)",
    ),
}
GROUPS = {
    "profile": "calibration profiles of the feature codec",
    "bench": "measure the pipeline on this machine",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        command, settings = parse(sys.argv[1:] if arguments is None else arguments)
        configure_logs(*settings.logs)
        return command(settings)
    except KeyboardInterrupt:
        return Exit.OK
    except BrokenPipeError:
        # The reader of our output has left, as `head` does; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        print(f"splitcast: {error}", file=sys.stderr)
        return code


def run() -> None:
    """The console script: `main`, and the end of the process even where a thread still works.

    A download or a stalled read may take minutes, and the interpreter would wait for it.
    """
    prepare_process()
    code = main()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(timeout=0.2)
            if thread.is_alive():
                logging.shutdown()
                sys.stdout.flush()
                os._exit(code)
    sys.exit(code)


def parse(arguments: Sequence[str]) -> tuple[Command, CommandSettings]:
    """The command that is named, and its settings.

    Raises SettingsError where a setting is wrong, SystemExit after help or where a command or flag is unknown.
    """
    for words in (1, 2):
        name = " ".join(arguments[:words])
        if command := COMMANDS.get(name):
            return command, command.parse(arguments[words:], name)
    _overview().parse_args(arguments)
    raise AssertionError(f"{arguments} names no command, and was not refused")


def _overview() -> ArgumentParser:
    """Help and complaints where no command is named."""
    parser = ArgumentParser(
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
