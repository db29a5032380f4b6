"""Every command's flags: each field is one, with help; values and repeated flags arrive as they were typed."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from pydantic_settings import CLI_SUPPRESS

from services.calibration.settings import CalibrateSettings
from services.camera.settings import CameraSettings
from services.cli import COMMANDS, Command, main, parse
from services.command_settings import CommandSettings
from services.commands.settings import DemoSettings, EncodeSettings, PointsSettings, WatchSettings
from services.errors import Exit, SettingsError
from services.evaluation.settings import AdviseSettings, EvaluateSettings
from services.study.settings import StudySettings
from tests.services.waiting import LIVENESS_S

LIGHT = """
import sys
from services.cli import COMMANDS, main
for name in ("", *COMMANDS):
    try:
        main([*name.split(), "--help"])
    except SystemExit:
        pass
    heavy = {"torch", "ultralytics", "matplotlib", "aiohttp", "av"} & sys.modules.keys()
    assert not heavy, (name, heavy)
"""


def settings_of(command: Command) -> type[CommandSettings]:
    module, _, name = command.settings.partition(":")
    return getattr(import_module(module), name)


def parsed(line: str) -> CommandSettings:
    return parse(line.split())[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_field_is_a_flag_with_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == Exit.OK
    text = " ".join(capsys.readouterr().out.split())
    assert f"usage: splitcast {name}" in text
    assert COMMANDS[name].help in text
    for wrong in ("Undefined", "default: None", "default: )", "Path", "\0"):
        assert wrong not in text
    for field_name, field in settings_of(COMMANDS[name]).model_fields.items():
        flag = f"--{(field.alias or field_name).replace('_', '-')}"
        if CLI_SUPPRESS in field.metadata:  # a secret
            assert f"{flag} " not in text
            continue
        assert flag in text or f" {field.title}" in text
        help_text = "".join((field.description or field.title or "").split())
        assert help_text
        assert help_text in "".join(text.split())  # argparse breaks a line within a flag, too


@pytest.mark.parametrize(
    ("name", "default"), [("points", "640x640"), ("detector", "8765"), ("detector", "0.45")]
)
def test_help_tells_defaults(name, default, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert f"(default: {default})" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_runs_exists_and_takes_its_settings(name):
    module, _, function = COMMANDS[name].run.partition(":")
    run = getattr(import_module(module), function)
    assert list(run.__annotations__) == ["settings", "return"]
    assert run.__annotations__["settings"] == settings_of(COMMANDS[name]).__name__


def test_help_loads_nothing_heavy():
    program = [sys.executable, "-c", LIGHT]
    done = subprocess.run(program, capture_output=True, text=True, timeout=LIVENESS_S, check=False)
    assert done.returncode == 0, done.stderr


def test_the_overview_lists_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == Exit.OK
    text = capsys.readouterr().out
    assert all(re.search(rf"^    {name.split()[0]}\b", text, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "required: COMMAND"),
        ("cmera", "invalid choice: 'cmera'"),
        ("bench", "required: COMMAND"),
        ("bench nothing", "invalid choice: 'nothing'"),
        ("detector --prot 1", "unrecognized arguments: --prot 1"),
        ("points --size", "--size: expected one argument"),
        ("encode in.npz", "required: OUT.spc"),
        ("calibrate --images a", "required: -o/--output"),
    ],
)
def test_refuses_what_is_no_command_or_flag(line, words, capsys):
    try:
        code = main(line.split())
    except SystemExit as refused:  # where no command is named
        code = refused.code
    assert code == Exit.USAGE
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evaluate", "nothing to evaluate on; .* --data"),
        ("evaluate --clip a.mp4 --labels a.json", "^--labels .* --data"),
        ("evaluate --clip a.mp4 --profile p --codec rle", "^--profile is for the feature codec"),
        ("evaluate --data a --repeat 3", "^--repeat is for --noise; give --noise 0"),
        ("evaluate --clip a.mp4 --noise 2 --repeat 3", "^--repeat is for the images of --data"),
        ("evaluate --data a --noise -1", "^--noise: .*greater than or equal to 0"),
        ("evaluate --data a --noise nan", "^--noise: "),
        ("evaluate --data a --noise 65", "^--noise: .*less than or equal to 64"),
        ("evaluate --clip a.mp4 --every 0", "^--every: .*greater than or equal to 1"),
        ("advise --link-kbps nan", "^--link-kbps: "),
        ("advise --link-kbps 1 --codec rle --profile p", "^--profile is for the feature codec, not for rle"),
        ("calibrate --images a -o b --seed -1", "^--seed: "),
        ("study figure9 --out a", "^NAME: no experiment 'figure9'; choose all, or one of table1"),
        ("study all --out a --labels b", "^--labels .* --data"),
        ("watch --count 0", "^--count: "),
        ("demo --threads x", "^--threads: .*integer"),
        ("encode a b --codec av1", "^--codec: no codec 'av1'"),
    ],
)
def test_names_the_flag_at_fault(line, words):
    with pytest.raises(SettingsError, match=words):
        parsed(line)


def test_repeated_flags_keep_their_commas_and_numbers():
    settings = parsed("evaluate --clip a,b.mp4 --codec feature:quality=4,effort=1 --codec rle --clip 7")
    assert isinstance(settings, EvaluateSettings)
    assert settings.clip == ("a,b.mp4", "7")
    assert settings.codec == ("feature:quality=4,effort=1", "rle")
    advice = parsed("advise --link-kbps 1e3 --split 4.m --split 9")
    assert isinstance(advice, AdviseSettings)
    assert (advice.link_kbps, advice.split) == (1000, ("4.m", "9"))


@pytest.mark.parametrize("text", ["null", "None", "true", "[1]", "{}", "1", ""])
def test_texts_arrive_as_they_were_typed(text):
    _, settings = parse(["watch", "--stream", text])
    assert isinstance(settings, WatchSettings)
    assert settings.stream == text


@pytest.mark.parametrize(
    ("line", "addresses"),
    [
        ("watch", ("ws://127.0.0.1:8765",)),
        ("watch host:1", ("host:1",)),
        ("watch wss://a/x,y ws://b:1 --json", ("wss://a/x,y", "ws://b:1")),
        ("watch a:1 b:1 a:1", ("a:1", "b:1")),
    ],
)
def test_several_detectors_are_watched_each_once(line, addresses):
    assert isinstance(settings := parsed(line), WatchSettings)
    assert settings.addresses == addresses


def test_help_says_which_switches_are_on(capsys):
    with pytest.raises(SystemExit):
        main(["detector", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "no pixels here (default: yes)" in text
    assert "[camera] or [detector]" in text


def test_switches():
    assert isinstance(watch := parsed("watch --json"), WatchSettings)
    assert watch.as_json
    assert isinstance(points := parsed("points"), PointsSettings)
    assert not points.as_json
    assert isinstance(study := parsed("study all --out a --quick"), StudySettings)
    assert (study.quick, study.from_records) == (True, False)
    for line, opened in (("demo", None), ("demo --open", True), ("demo --no-open", False)):
        assert isinstance(demo := parsed(line), DemoSettings)
        assert demo.open is opened
    assert isinstance(camera := parsed("camera --source 0 --no-realtime --loop"), CameraSettings)
    assert (camera.realtime, camera.loop) == (False, True)


def test_positionals_and_short_flags():
    assert isinstance(encode := parsed("encode a.npz --codec raw b.spc"), EncodeSettings)
    assert (encode.input, encode.output, encode.codec) == (Path("a.npz"), Path("b.spc"), "raw")
    assert isinstance(short := parsed("calibrate --images a -o b"), CalibrateSettings)
    assert isinstance(long := parsed("calibrate --images a --output b"), CalibrateSettings)
    assert short == long
    assert short.output == Path("b")


def test_flags_may_be_abbreviated():
    assert isinstance(settings := parsed("calibrate --im a -o b --max 3"), CalibrateSettings)
    assert (settings.images, settings.max_images) == (Path("a"), 3)


def test_only_services_hear_the_environment(monkeypatch):
    for name in ("SPLITCAST_SIZE", "SIZE"):
        monkeypatch.setenv(name, "320")
    assert isinstance(points := parsed("points"), PointsSettings)
    assert points.size == "640x640"
    assert isinstance(camera := parsed("camera --source 0"), CameraSettings)
    assert camera.size == "320"


def test_settings_are_frozen():
    assert all(settings_of(command).model_config["frozen"] for command in COMMANDS.values())
    with pytest.raises(ValueError, match="frozen"):
        parsed("points").model = "yolov5m"


@pytest.mark.parametrize("line", ["advise --link-kbps 1000", "evaluate --data x", "demo"])
def test_commands_for_people_tell_their_warnings(line):
    assert parsed(line).logs.level == "warning"
