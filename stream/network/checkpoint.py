"""Reads a YOLOv5 checkpoint (.pt) as data: its pickle is interpreted, never executed.

A checkpoint is a zip file. `data.pkl` describes the objects as a pickle program, `data/KEY` holds the bytes of
each tensor storage. Unpickling such a program imports and calls whatever it names, so a checkpoint from elsewhere
could run anything. Here a small interpreter follows the program instead: classes become inert records, tensors
become descriptions that are checked against the file before a byte is allocated, and any name outside the
allow-list is refused.
"""

from __future__ import annotations

import pickletools
import reprlib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO, Any

import torch

from stream.errors import CheckpointError, UnreadableCheckpoint, UnsafeCheckpoint

# A yolov5x with its averaged copy and its optimizer describes itself in 0.5 MB and 0.2 million steps.
_MAX_PICKLE_BYTES = 4 << 20
_MAX_STEPS = 500_000  # opcodes, and values that an opcode copies
_MAX_DIRECTORY_BYTES = 1 << 20  # the zip file's list of members; that yolov5x needs 0.2 MB
_MAX_ENTRIES = 20_000  # modules and tensors; a shared one may stand for a tree of any size
_MAX_PATH = 200  # characters of a module's or tensor's path; a module may even contain itself
_MAX_NAME = 200  # characters of a class, of the network's or of the program's
_MAX_CLASSES = 4096
_MAX_KEY = 1 << 31  # of a dictionary; unbounded integers can be chosen to have equal hashes
_MAX_DIMENSIONS = 8

_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}

# What may be named. None of it is imported: an allowed name only becomes the kind of an inert record.
_ALLOWED_PREFIXES = (
    "models.",
    "utils.",
    "yolov5.models.",
    "yolov5.utils.",
    "ultralytics.",
    "torch.nn.",
    "pathlib.",
    "datetime.",
)
_CONTAINERS = ("dict", "frozenset", "list", "set")
_ALLOWED_NAMES = frozenset(
    {
        *_DTYPES,
        *(f"{builtins}.{kind}" for builtins in ("__builtin__", "builtins") for kind in _CONTAINERS),
        "_codecs.encode",
        "argparse.Namespace",
        "collections.Counter",
        "collections.OrderedDict",
        "collections.defaultdict",
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "torch.Size",
        "torch.device",
        "torch.float16",
        "torch.float32",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_tensor_v2",
        "torch.torch_version.TorchVersion",
        "types.SimpleNamespace",
    }
)


@dataclass(slots=True, eq=False)
class Record:
    """An object of the pickle, reduced to the name of its class and its attributes."""

    kind: str  # full dotted name, for example "models.common.Conv"
    state: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Class name without its module."""
        return self.kind.rpartition(".")[2]

    def children(self, group: str) -> Mapping[str, object]:
        """One of a torch module's own tables: `_modules`, `_parameters` or `_buffers`; empty if absent."""
        table = self.state.get(group)
        return {str(key): value for key, value in table.items()} if isinstance(table, dict) else {}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor still in the file; its geometry has been checked against the bytes that are there."""

    member: str
    dtype: torch.dtype
    elements: int  # of the whole storage
    offset: int  # in elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # in elements


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a YOLOv5 checkpoint holds, before anything is built from it."""

    yaml: Mapping[str, object]  # untrusted: the network's description as its author wrote it
    names: tuple[str, ...] | None  # of the classes
    state: dict[str, torch.Tensor]  # parameters and buffers as stored, keyed as by torch's state_dict
    activations: dict[str, Record]  # of each convolution, by the path of its module


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights and description in a `.pt` file, read without running any of it.

    Prefers the averaged weights (`ema`) where the file has both, as the official tools do.
    Raises UnreadableCheckpoint, UnsafeCheckpoint.
    """
    with _translated(path), path.open("rb") as file, _opened(file) as archive:
        contents = _Archive(archive)
        model = _find_model(_Interpreter(contents).run())
        tensors, activations = _walk(model)
        if sum(stored.dtype.itemsize * prod(stored.shape) for stored in tensors.values()) > contents.size:
            # Each tensor fits its storage, but many of them may share one: the file would grow in memory.
            raise UnreadableCheckpoint("declares more weights than the file holds")
        state = {name: contents.load(stored) for name, stored in tensors.items()}
        yaml = model.state.get("yaml")
        if not isinstance(yaml, dict):
            raise UnreadableCheckpoint(
                "lacks the description of its network (yaml); use an official checkpoint"
            )
        return Checkpoint(yaml, _class_names(model.state.get("names")), state, activations)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turns what zipfile and pickletools raise on damaged bytes into one error."""
    try:
        yield
    except CheckpointError as error:
        error.args = (f"{path}: {error}",)
        raise
    except FileNotFoundError as error:
        raise UnreadableCheckpoint(f"no checkpoint at {path}") from error
    except zipfile.BadZipFile as error:
        raise UnreadableCheckpoint(
            f"{path} is not a whole PyTorch zip checkpoint ({error}); fetch it again, "
            "or re-save a file from before PyTorch 1.6 with a newer one"
        ) from error
    except Exception as error:  # damaged bytes make zipfile and pickletools raise a dozen unrelated types
        shown = repr(error)[:_MAX_NAME]
        raise UnreadableCheckpoint(f"{path} is damaged ({shown}); fetch it again") from error


def _opened(file: IO[bytes]) -> zipfile.ZipFile:
    """The zip file, once its list of members is known to be short: `ZipFile` parses any length at once."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined] # the public API offers no look before parsing
    if end and end[zipfile._ECD_SIZE] > _MAX_DIRECTORY_BYTES:  # type: ignore[attr-defined]
        raise UnreadableCheckpoint(
            f"the zip file's list of members is longer than {_MAX_DIRECTORY_BYTES} bytes"
        )
    return zipfile.ZipFile(file)


class _Archive:
    """The zip file: finds its members and checks their sizes before anything is read."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UnreadableCheckpoint("a zip file, but not a PyTorch checkpoint: it has no data.pkl")
        self._root = pickles[0].removesuffix("data.pkl")
        if f"{self._root}constants.pkl" in members:
            raise UnreadableCheckpoint("a TorchScript export; use the .pt file it was exported from")
        # PyTorch stores without compression, so the parts together cannot be larger than the file: no zip bombs.
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise UnreadableCheckpoint(
                "the zip file is compressed, which PyTorch never does; use the original file"
            )
        if any(info.compress_size != info.file_size for info in members.values()):
            raise UnreadableCheckpoint("the zip file gives a member two sizes")
        self.size = sum(info.file_size for info in members.values())
        archive_file = archive.fp
        assert archive_file is not None
        if self.size > archive_file.seek(0, 2):
            raise UnreadableCheckpoint("the parts of the zip file are together larger than the file")
        self._members = members
        folder = f"{self._root}data/"
        self._storages = {
            name.removeprefix(folder): info for name, info in members.items() if name.startswith(folder)
        }
        self._loaded: dict[str, torch.Tensor] = {}  # storages, which tensors may share
        if self._read(f"{self._root}byteorder", limit=16, default=b"little") != b"little":
            raise UnreadableCheckpoint("saved on a big-endian machine; re-save it on a little-endian one")

    def pickle(self) -> bytes:
        return self._read(f"{self._root}data.pkl", limit=_MAX_PICKLE_BYTES)

    def storage(self, key: str, dtype: torch.dtype, elements: int) -> str:
        """Member that holds a storage, once its size is known to be what the pickle declares."""
        info = self._storages.get(key)
        if info is None or elements < 0 or info.file_size != elements * dtype.itemsize:
            raise UnreadableCheckpoint(
                f"tensor storage {reprlib.repr(key)} is missing or not of the declared size"
            )
        return info.filename

    def load(self, stored: StoredTensor) -> torch.Tensor:
        if stored.elements == 0:
            return torch.empty(stored.shape, dtype=stored.dtype)
        if stored.member not in self._loaded:
            data = bytearray(self._archive.read(stored.member))
            self._loaded[stored.member] = torch.frombuffer(data, dtype=stored.dtype)
        return self._loaded[stored.member].as_strided(stored.shape, stored.stride, stored.offset)

    def _read(self, member: str, limit: int, default: bytes | None = None) -> bytes:
        info = self._members.get(member)
        if info is None and default is not None:
            return default
        if info is None or info.file_size > limit:
            raise UnreadableCheckpoint(f"{member} is missing or larger than {limit} bytes")
        return self._archive.read(info)


@dataclass(frozen=True, slots=True)
class _Name:
    """A class or function that the pickle names: only ever a name here."""

    path: str


@dataclass(frozen=True, slots=True)
class _Storage:
    member: str
    dtype: torch.dtype
    elements: int


_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_OLD_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_LITERALS = _NUMBERS | _TEXTS | _OLD_TEXTS | _BYTES
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DICTS = frozenset({"collections.OrderedDict", "collections.defaultdict"})


class _Interpreter:
    """Follows a pickle program on a stack of plain values; calls nothing that the program names."""

    def __init__(self, archive: _Archive) -> None:
        self._archive = archive
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self._steps = 0

    def run(self) -> object:
        for opcode, argument, _ in pickletools.genops(self._archive.pickle()):
            self._spend(1)
            self._step(opcode.name, argument)
        (result,) = self._stack
        return result

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS:
            raise UnreadableCheckpoint(f"the pickle takes more than {_MAX_STEPS} steps")

    def _step(self, opcode: str, argument: Any) -> None:  # noqa: PLR0912, PLR0915 - one case per opcode
        stack = self._stack
        match opcode:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _ if opcode in _LITERALS:
                stack.append(argument)
            case _ if opcode in _CONSTANTS:
                stack.append(_CONSTANTS[opcode])
            case "MARK":
                self._marks.append(len(stack))
            case "EMPTY_TUPLE":
                stack.append(())
            case _ if opcode in _TUPLES:
                stack.append(tuple(self._pop(_TUPLES[opcode])))
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "LIST" | "FROZENSET":
                stack.append(self._pop_to_mark())
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = self._pop_to_mark()
                stack.append({})
                self._set_items(items)
            case "APPEND":
                self._extend(self._pop(1))
            case "APPENDS" | "ADDITEMS":
                self._extend(self._pop_to_mark())
            case "SETITEM":
                self._set_items(self._pop(2))
            case "SETITEMS":
                self._set_items(self._pop_to_mark())
            case "POP":
                self._pop(1)
            case "POP_MARK":
                self._pop_to_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                if not 0 <= argument < _MAX_KEY:
                    raise UnreadableCheckpoint("the pickle numbers its values beyond any count of them")
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                module, _, name = argument.partition(" ")
                stack.append(_allowed(module, name))
            case "STACK_GLOBAL":
                module, name = self._pop(2)
                stack.append(_allowed(module, name))
            case "BINPERSID":
                stack.append(self._storage(*self._pop(1)))
            case "REDUCE" | "NEWOBJ":
                stack.append(self._made(*self._pop(2)))
            case "NEWOBJ_EX":
                target, arguments, _ = self._pop(3)
                stack.append(self._made(target, arguments))
            case "BUILD":
                (state,) = self._pop(1)
                self._build(stack[-1], state)
            case _:
                raise UnreadableCheckpoint(f"the pickle uses opcode {opcode}, which PyTorch never writes")

    def _pop(self, count: int) -> list[Any]:
        floor = self._marks[-1] if self._marks else 0
        if len(self._stack) - count < floor:
            raise UnreadableCheckpoint("the pickle takes more from its stack than is there")
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _pop_to_mark(self) -> list[Any]:
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _extend(self, values: list[Any]) -> None:
        match self._stack[-1]:
            case list() as target:
                target.extend(values)
            case Record():
                pass
            case other:
                raise UnreadableCheckpoint(f"the pickle appends to a {type(other).__name__}")

    def _set_items(self, items: list[Any]) -> None:
        match self._stack[-1]:
            case dict() as target:
                for key, value in zip(items[::2], items[1::2], strict=True):
                    target[_checked_key(key)] = value
            case Record():
                pass
            case other:
                raise UnreadableCheckpoint(f"the pickle sets items of a {type(other).__name__}")

    def _storage(self, reference: object) -> _Storage:
        match reference:
            case ("storage", _Name(kind), str() as key, str(), int() as elements) if kind in _DTYPES:
                dtype = _DTYPES[kind]
                return _Storage(self._archive.storage(key, dtype, elements), dtype, elements)
        raise UnreadableCheckpoint("the pickle has a persistent id that is not a tensor storage")

    def _made(self, target: object, arguments: object) -> object:
        """What stands for `target(*arguments)`: a dictionary, a tensor, or an inert record."""
        if not isinstance(target, _Name) or not isinstance(arguments, tuple):
            raise UnreadableCheckpoint("the pickle calls something that is not a class or function")
        match target.path, arguments:
            case path, (list() | tuple() as pairs,) if path in _DICTS:
                self._spend(len(pairs))
                return {_checked_key(key): value for key, value in pairs}
            case path, _ if path in _DICTS:
                return {}
            case "torch._utils._rebuild_tensor_v2", (_Storage() as storage, offset, shape, stride, *_):
                return _tensor(storage, offset, shape, stride)
            case path, (StoredTensor() as tensor, *_) if path.startswith("torch._utils._rebuild_parameter"):
                return tensor
        return Record(target.path)

    def _build(self, target: object, state: object) -> None:
        """What stands for `target.__setstate__(state)`: a record keeps its attributes, all else ignores them."""
        if isinstance(target, Record):
            parts = state if isinstance(state, tuple) else (state,)
            self._spend(len(parts))
            for part in parts:
                if isinstance(part, dict):
                    self._spend(len(part))
                    target.state.update({key: value for key, value in part.items() if isinstance(key, str)})
        elif not isinstance(target, dict | StoredTensor):
            raise UnreadableCheckpoint(f"the pickle sets the state of a {type(target).__name__}")


def _checked_key(key: object) -> object:
    """The key, once it is known to be cheap to hash.

    Hashing a deeply nested tuple would overflow the C stack, and numbers with equal hashes make a dictionary
    quadratic. Texts are safe: Python salts their hashes.
    """
    if not isinstance(key, str | int | None):
        raise UnreadableCheckpoint(f"the pickle has a dictionary key of type {type(key).__name__}")
    if isinstance(key, int) and not -_MAX_KEY < key < _MAX_KEY:
        raise UnreadableCheckpoint("the pickle has a dictionary key of more than 31 bits")
    return key


def _allowed(module: object, name: object) -> _Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise UnreadableCheckpoint("the pickle names a class by something that is not text")
    # A long text, once written, can be named any number of times, and each would be a new text.
    if len(module) + len(name) > _MAX_NAME:
        raise UnsafeCheckpoint(f"{module[:80]}.{name[:80]}")
    path = f"{module}.{name}"
    if path in _ALLOWED_NAMES or path.startswith(_ALLOWED_PREFIXES):
        return _Name(path)
    raise UnsafeCheckpoint(path)


def _tensor(storage: _Storage, offset: object, shape: object, stride: object) -> StoredTensor:
    """Raises UnreadableCheckpoint unless the tensor lies inside its storage and has no more elements than it."""
    match offset, shape, stride:
        case int(), tuple(), tuple() if len(shape) == len(stride) <= _MAX_DIMENSIONS:
            if all(type(number) is int and 0 <= number < 1 << 62 for number in (offset, *shape, *stride)):
                last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
                if 0 in shape:
                    return StoredTensor(storage.member, storage.dtype, 0, 0, shape, stride)
                if last < storage.elements and prod(shape) <= storage.elements:
                    return StoredTensor(
                        storage.member, storage.dtype, storage.elements, offset, shape, stride
                    )
    raise UnreadableCheckpoint("a tensor does not lie inside its storage")


def _find_model(root: object) -> Record:
    if not isinstance(root, dict):
        raise UnreadableCheckpoint("not a YOLOv5 checkpoint: it should be a dictionary with a 'model'")
    for key in ("ema", "model"):
        match root.get(key):
            case Record() as model:
                return model
    raise UnreadableCheckpoint(
        "not a YOLOv5 checkpoint: it has no 'model' module (a bare state dict lacks the network's description)"
    )


def _walk(model: Record) -> tuple[dict[str, StoredTensor], dict[str, Record]]:
    """Parameters and buffers by path, and the activation of each module that has one."""
    tensors: dict[str, StoredTensor] = {}
    activations: dict[str, Record] = {}
    pending = [("", model)]
    entries = 0
    while pending:
        path, module = pending.pop()
        weights = {**module.children("_parameters"), **module.children("_buffers")}
        children = module.children("_modules")
        entries += 1 + len(weights) + len(children)
        prefix = f"{path}." if path else ""
        longest = max(map(len, (*weights, *children)), default=0)
        if entries > _MAX_ENTRIES or len(prefix) + longest > _MAX_PATH:
            raise UnreadableCheckpoint(
                "the network has too many modules, names too long, or a module that contains itself"
            )
        for name, value in weights.items():
            if isinstance(value, StoredTensor):
                tensors[prefix + name] = value
        for name, child in children.items():
            if isinstance(child, Record):
                pending.append((prefix + name, child))
                if name == "act":
                    activations[path] = child
    return tensors, activations


def _class_names(names: object) -> tuple[str, ...] | None:
    """Class names in the order of their indices, from a list or from a dictionary by index."""
    if isinstance(names, dict):
        names = [names[key] for key in sorted(key for key in names if isinstance(key, int))]
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        return None
    # A text or a number of any length may stand in every place of the list.
    if len(names) > _MAX_CLASSES or any(
        len(name) > _MAX_NAME if isinstance(name, str) else name.bit_length() > 64 for name in names
    ):
        raise UnreadableCheckpoint("the network has too many classes, or names too long")
    return tuple(str(name) for name in names)
