"""Each exit code of docs/operations.md is that of a class of errors."""

from __future__ import annotations

import re

import pytest

from codec import errors as codec_errors
from services import errors
from services.errors import Exit, exit_code
from stream import errors as stream_errors
from stream.session.close_codes import CloseCode
from tests.paths import ROOT

BY_CLASS = {
    Exit.FAILURE: [
        OSError("disk full"),
        errors.CannotListen("--port"),
        errors.DetectorFailed("died"),
        errors.NotMeasurable("no clip"),
        errors.PixelCodecError("x264"),
        errors.TranscodeError("empty"),
        codec_errors.BadLayout("deep"),
    ],
    Exit.USAGE: [
        errors.SettingsError("--size"),
        errors.BadAddress("ws://"),
        errors.MissingCodec("avif"),
        codec_errors.UnknownProfile("abc"),
        codec_errors.ProfileError("damaged"),
        codec_errors.ProfileMismatch("of another network"),
        stream_errors.InvalidSize("33"),
        stream_errors.UnknownModel("yolov9"),
        stream_errors.UnknownSplitPoint("99", ("4.m",)),
    ],
    Exit.SOURCE: [stream_errors.SourceError("none.mp4"), stream_errors.BadVirtualCamera("fps")],
    Exit.REFUSED: [errors.DetectorRefused(CloseCode.WEIGHTS_DIFFER, "weights differ")],
    Exit.WEIGHTS: [stream_errors.WeightsError("none"), stream_errors.UnsafeCheckpoint("os.system")],
    Exit.NOTHING_DETECTED: [errors.NothingDetected("every frame was rejected")],
}
WITHOUT_ERROR = {Exit.OK}


@pytest.mark.parametrize(
    ("code", "error"), [(code, error) for code, examples in BY_CLASS.items() for error in examples]
)
def test_an_error_ends_with_the_code_of_its_class(code, error):
    assert exit_code(error) == code


def test_every_error_of_the_services_has_a_code():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert set(kinds) > {errors.ServiceError, errors.SettingsError}
    for kind in kinds:
        assert issubclass(kind, errors.ServiceError)
        assert kind.exit_code not in WITHOUT_ERROR


def test_a_defect_of_ours_has_none():
    assert exit_code(ValueError("a bug")) is None
    assert exit_code(AssertionError()) is None


def test_a_class_of_the_same_name_is_another_class():
    class SettingsError(Exception):
        pass

    assert exit_code(SettingsError()) is None


def test_the_documentation_lists_every_code():
    section = (ROOT / "docs/operations.md").read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    assert documented == set(Exit)
    assert documented == BY_CLASS.keys() | WITHOUT_ERROR


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    assert drawn | {"ServiceError"} == {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
    }
