"""What can go wrong in the services that a person can do something about, and the exit code that each ends with.

    ServiceError               FAILURE
    ├── SettingsError          USAGE
    │   ├── BadAddress
    │   └── MissingCodec
    ├── CannotListen           FAILURE
    ├── DetectorRefused        REFUSED
    ├── DetectorFailed         FAILURE, or the detector's own
    ├── NothingDetected        NOTHING_DETECTED
    ├── TranscodeError         FAILURE
    ├── PixelCodecError        FAILURE
    └── NotMeasurable          FAILURE

Errors of `codec` and `stream` know nothing of exit codes; `exit_code` gives them theirs, by class. Other errors of
`stream` never leave a service: a session that ends badly is tried again.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes, as documented in docs/operations.md."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    SOURCE = 3
    REFUSED = 4
    WEIGHTS = 5
    NOTHING_DETECTED = 6


class ServiceError(Exception):
    """Base of every error that the services raise on purpose; the message says what to do."""

    exit_code: Exit = Exit.FAILURE


class SettingsError(ServiceError):
    """A setting is missing or wrong."""

    exit_code = Exit.USAGE


class BadAddress(SettingsError):
    """An address that detections cannot be watched at."""


class MissingCodec(SettingsError):
    """A codec that the installed Pillow or PyAV was built without."""


class CannotListen(ServiceError):
    """A port that another program has, which may leave, or an address that is not this machine's."""


class DetectorRefused(ServiceError):
    """The detector refuses this camera's settings; trying again with the same ones is of no use."""

    exit_code = Exit.REFUSED

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the detector refused this camera ({code}): {reason}")
        self.code, self.reason = code, reason


class DetectorFailed(ServiceError):
    """The detector process ended before it was ready, with an exit code of its own."""

    def __init__(self, reason: str, code: Exit = Exit.FAILURE) -> None:
        super().__init__(reason)
        self.exit_code = code


class NothingDetected(ServiceError):
    """A source has ended, and no frame of it was detected."""

    exit_code = Exit.NOTHING_DETECTED


class TranscodeError(ServiceError):
    """A file that holds no features; the message says what it should hold."""


class PixelCodecError(ServiceError):
    """An image or video codec failed on a canvas, or lost one."""


class NotMeasurable(ServiceError):
    """An experiment cannot be done with what is there; the message says what it takes."""


def words_of(error: BaseException) -> str:
    """What an error says; of an OSError that names no file its words alone, without the number before them."""
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror
    return str(error)


def exit_code(error: Exception) -> Exit | None:
    """The exit code of an error that a person can do something about; None for a defect of ours."""
    if isinstance(error, ServiceError):
        return error.exit_code
    # Imported here, where something has failed, and not by a program that has yet to prepare its process: the doors
    # of these packages may load numpy.
    from codec import errors as codec_errors
    from stream import errors as stream_errors

    codes: dict[type[Exception], Exit] = {
        codec_errors.BadCodecSpec: Exit.USAGE,
        # A file that was named: it does not become right by starting again.
        codec_errors.ProfileError: Exit.USAGE,
        codec_errors.ProfileMismatch: Exit.USAGE,
        codec_errors.CodecError: Exit.FAILURE,
        stream_errors.InvalidSize: Exit.USAGE,
        stream_errors.NoRecording: Exit.FAILURE,
        stream_errors.UnknownModel: Exit.USAGE,
        stream_errors.UnknownSplitPoint: Exit.USAGE,
        stream_errors.SourceError: Exit.SOURCE,
        stream_errors.WeightsError: Exit.WEIGHTS,
        stream_errors.CheckpointError: Exit.WEIGHTS,
        OSError: Exit.FAILURE,
    }
    return next((codes[kind] for kind in type(error).__mro__ if kind in codes), None)
