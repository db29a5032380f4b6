"""Follows a pickle program without running it: what comes out is inert.

Unpickling imports and calls whatever the program names, so a file from elsewhere could run anything. Here classes
become descriptions of objects, tensors become descriptions that are checked against the file before a byte is
allocated, and any name outside the allow-list is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from stream.errors import UnreadableCheckpoint, UnsafeCheckpoint

MAX_STEPS = 500_000  # opcodes, and values that an opcode copies
_MAX_KEY = 1 << 31  # of a dictionary; unbounded integers can be chosen to have equal hashes
_MAX_DIMENSIONS = 8
_MAX_NAME = 200  # characters of a name of the program's

_DTYPES = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}

# What may be named. None of it is imported: an allowed name only becomes the kind of an inert record.
_ALLOWED_PREFIXES = (
    "models.",
    "utils.",
    "yolov5.models.",
    "yolov5.utils.",
    "ultralytics.",
    "torch.distributed.",
    "torch.nn.",
    "pathlib.",
    "datetime.",
)
_BUILTINS = ("bool", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple", "unicode")
_ALLOWED_NAMES = frozenset(
    {
        *_DTYPES,
        *(f"{builtins}.{kind}" for builtins in ("__builtin__", "builtins") for kind in _BUILTINS),
        "_codecs.encode",
        "argparse.Namespace",
        "collections.Counter",
        "collections.OrderedDict",
        "collections.defaultdict",
        "cloudpickle.cloudpickle._make_dict_keys",
        "cloudpickle.cloudpickle._make_dict_values",
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


@dataclass(slots=True, eq=False, repr=False)
class PickledObject:
    """An object of the pickle, reduced to the name of its class and its attributes."""

    kind: str  # full dotted name, for example "models.common.Conv"
    arguments: tuple[object, ...] = ()  # that it was made from
    state: dict[str, object] = field(default_factory=dict)
    built: tuple[object, ...] = ()  # its state where that is not made of dictionaries, as numpy's is

    @property
    def name(self) -> str:
        """Class name without its module."""
        return self.kind.rpartition(".")[2]

    def __repr__(self) -> str:
        return f"<{self.kind}>"  # what it holds may hold itself, or the same thing a thousand times

    def children(self, group: str) -> Mapping[str, object]:
        """One of a torch module's own tables: `_modules`, `_parameters` or `_buffers`; empty if absent."""
        table = self.state.get(group)
        if not isinstance(table, dict):
            return {}
        return {key: value for key, value in table.items() if isinstance(key, str)}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor still in the file; its geometry has been checked against the bytes that are there."""

    member: str
    dtype: np.dtype[Any]
    elements: int  # of the whole storage
    offset: int  # in elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # in elements


@dataclass(frozen=True, slots=True)
class _Name:
    """A class or function that the pickle names: only ever a name here."""

    path: str


@dataclass(frozen=True, slots=True)
class _Storage:
    member: str
    dtype: np.dtype[Any]
    elements: int


_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_OLD_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_LITERALS = _NUMBERS | _TEXTS | _OLD_TEXTS | _BYTES
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DICTS = frozenset({"collections.OrderedDict", "collections.defaultdict"})


FindStorage: TypeAlias = Callable[[str, np.dtype[Any], int], str]
"""Member of the file that holds a storage, from its key, type and number of elements; raises if there is none."""


class PickleReader:
    """Follows a pickle program on a stack of plain values; calls nothing that the program names."""

    def __init__(self, find_storage: FindStorage) -> None:
        self._find_storage = find_storage
        self.stack: list[Any] = []  # what the steps so far have left
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self._steps = 0

    def read(self, program: bytes) -> object:
        """What the program builds: dictionaries, lists, texts, numbers, and what stands for objects and tensors.

        Raises UnreadableCheckpoint, UnsafeCheckpoint, or, for damaged bytes, whatever pickletools raises.
        """
        for opcode, argument, _ in pickletools.genops(program):
            self._spend(1)
            self.follow(opcode.name, argument)
        (result,) = self.stack
        return result

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise UnreadableCheckpoint(f"the pickle takes more than {MAX_STEPS} steps")

    def follow(self, opcode: str, argument: Any) -> None:  # noqa: PLR0912, PLR0915 - one case per opcode
        """Take one step of the program."""
        stack = self.stack
        match opcode:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _ if opcode in _LITERALS:
                stack.append(argument)
            case _ if opcode in _CONSTANTS:
                stack.append(_CONSTANTS[opcode])
            case "MARK":
                self._marks.append(len(stack))
            case _ if opcode in _TUPLES:
                stack.append(tuple(self._pop(_TUPLES[opcode])))
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append(_collected(opcode, []))
            case "LIST" | "FROZENSET":
                stack.append(_collected(opcode, self._pop_to_mark()))
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
                self._memoize(argument)
            case "MEMOIZE":
                self._memoize(len(self._memo))
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(_allowed(*argument.split(" ", maxsplit=1)))
            case "STACK_GLOBAL":
                stack.append(_allowed(*self._pop(2)))
            case "BINPERSID":
                stack.append(self._found_storage(*self._pop(1)))
            case "REDUCE" | "NEWOBJ":
                stack.append(self._made(*self._pop(2)))
            case "NEWOBJ_EX":
                stack.append(self._made(*self._pop(3)[:2]))
            case "BUILD":
                self._build(*self._pop(1))
            case _:
                raise UnreadableCheckpoint(f"the pickle uses opcode {opcode}, which PyTorch never writes")

    def _memoize(self, number: int) -> None:
        if not 0 <= number < _MAX_KEY:
            raise UnreadableCheckpoint("the pickle numbers its values beyond any count of them")
        self._memo[number] = self.stack[-1]

    def _pop(self, count: int) -> list[Any]:
        floor = self._marks[-1] if self._marks else 0
        if len(self.stack) - count < floor:
            raise UnreadableCheckpoint("the pickle takes more from its stack than is there")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _pop_to_mark(self) -> list[Any]:
        mark = self._marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def _extend(self, values: list[Any]) -> None:
        match self.stack[-1]:
            case list() as target:
                target.extend(values)
            case PickledObject():
                pass
            case other:
                raise UnreadableCheckpoint(f"the pickle appends to a {type(other).__name__}")

    def _set_items(self, items: list[Any]) -> None:
        match self.stack[-1]:
            case dict() as target:
                for key, value in zip(items[::2], items[1::2], strict=True):
                    target[_checked_key(key)] = value
            case PickledObject():
                pass
            case other:
                raise UnreadableCheckpoint(f"the pickle sets items of a {type(other).__name__}")

    def _found_storage(self, reference: object) -> _Storage:
        match reference:
            case ("storage", _Name(kind), str() as key, str(), int() as elements) if kind in _DTYPES:
                dtype = _DTYPES[kind]
                return _Storage(self._find_storage(key, dtype, elements), dtype, elements)
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
        return PickledObject(target.path, arguments)

    def _build(self, state: object) -> None:
        """What stands for `__setstate__(state)` of the last value, which only an object keeps."""
        target = self.stack[-1]
        if isinstance(target, PickledObject):
            parts = state if isinstance(state, tuple) else (state,)
            if not any(isinstance(part, dict) for part in parts):
                target.built = parts
            self._spend(len(parts))
            for part in parts:
                if isinstance(part, dict):
                    self._spend(len(part))
                    target.state.update({key: value for key, value in part.items() if isinstance(key, str)})
        elif not isinstance(target, dict | StoredTensor):
            raise UnreadableCheckpoint(f"the pickle sets the state of a {type(target).__name__}")


def _collected(opcode: str, values: list[object]) -> object:
    """A list of the values, or an inert record in place of a set: whatever stands in it has no order."""
    return PickledObject("builtins.set") if opcode.endswith("SET") else values


def _checked_key(key: object) -> object:
    """The key, once it is known to be cheap to hash.

    Hashing a deeply nested tuple would overflow the C stack, and numbers with equal hashes make a dictionary
    quadratic. Texts are safe: Python salts their hashes.
    """
    if isinstance(key, float) and key.is_integer() and abs(key) < _MAX_KEY:
        return int(key)
    # An inert record, such as one of numpy's numbers, is its own key: it is not compared by what it holds.
    if not isinstance(key, str | int | PickledObject | None):
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
