"""Reads a pickle without executing anything in it.

This module decides what each pickle instruction builds: plain containers and constants, and inert records where the
pickle asks for a class or a call. It must not know tensors, files or PyTorch. It imports nothing that a pickle names,
calls nothing that a pickle names, and never touches :mod:`pickle`'s own machine: whatever the file says, the result is
data. Instructions are decoded by :mod:`pickletools`, which checks lengths against the bytes present.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class BrokenPickle(ValueError):
    """The bytes are no complete pickle; the text says why."""


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the pickle names. It is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call or construction that the pickle asks for. It is never carried out; state set on it is dropped."""

    function: object
    arguments: tuple[object, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A persistent id: where the writer stored something outside the pickle."""

    identity: object = field(repr=False)


class _Mark:
    """The stack position that a MARK instruction remembers."""


_MARK = _Mark()
_KEY_TYPES = (str, bytes, int, float, bool, type(None))
_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], object]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}
_VALUES = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "FLOAT",
        "BINFLOAT",
    ]
)
_PUT = frozenset(["PUT", "BINPUT", "LONG_BINPUT"])
_GET = frozenset(["GET", "BINGET", "LONG_BINGET"])
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(data: bytes) -> object:
    """The object that ``data`` describes, with :class:`Name`, :class:`Call` and :class:`Reference` in place of code.

    Sets become lists. An ``OrderedDict`` becomes a dict. Dictionary entries whose key is no plain constant are dropped.
    Raises :class:`BrokenPickle` for anything that is no complete pickle or asks for an extension registry or buffers.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except BrokenPickle:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise BrokenPickle(f"the pickle is damaged ({type(error).__name__})") from error
    raise BrokenPickle("the pickle ends too early")


class _Machine:
    """Stack and memo of one pickle."""

    def __init__(self) -> None:
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}

    def pop(self) -> object:
        """Top of the stack; a mark there means a damaged pickle."""
        value = self._stack.pop()
        if value is _MARK:
            raise BrokenPickle("the pickle is damaged (stray mark)")
        return value

    def step(self, op: str, argument: Any) -> None:
        """Carry out one instruction."""
        stack = self._stack
        if op in _VALUES:
            stack.append(argument)
        elif op in _CONSTANTS:
            stack.append(_CONSTANTS[op])
        elif op in _EMPTY:
            stack.append(_EMPTY[op]())
        elif op in _PUT:
            self._memo[int(argument)] = self._top()
        elif op == "MEMOIZE":
            self._memo[len(self._memo)] = self._top()
        elif op in _GET:
            stack.append(self._memo[int(argument)])
        elif op in _TUPLES:
            stack.append(tuple(reversed([self.pop() for _ in range(_TUPLES[op])])))
        elif op in _HANDLERS:
            _HANDLERS[op](self, argument)
        else:
            raise BrokenPickle(f"the pickle uses the instruction {op}, which no checkpoint needs")

    def _top(self) -> object:
        value = self.pop()
        self._stack.append(value)
        return value

    def _since_mark(self) -> list[object]:
        items: list[object] = []
        while (value := self._stack.pop()) is not _MARK:
            items.append(value)
        items.reverse()
        return items

    def _extend(self, items: list[object]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)

    def _set_items(self, flat: list[object]) -> None:
        if len(flat) % 2:
            raise BrokenPickle("the pickle is damaged (a key without value)")
        target = self._top()
        if isinstance(target, dict):
            # Other keys could be nested deep enough to overflow the interpreter's own stack while being hashed.
            target.update((k, v) for k, v in zip(flat[::2], flat[1::2]) if isinstance(k, _KEY_TYPES))

    def _call(self, function: object, arguments: object) -> None:
        self._stack.append(_inert_call(function, arguments if isinstance(arguments, tuple) else ()))

    def nothing(self, argument: Any) -> None:
        """PROTO, FRAME: no effect on the result."""

    def mark(self, argument: Any) -> None:
        """MARK."""
        self._stack.append(_MARK)

    def drop(self, argument: Any) -> None:
        """POP, which may also remove a mark."""
        self._stack.pop()

    def drop_to_mark(self, argument: Any) -> None:
        """POP_MARK."""
        self._since_mark()

    def duplicate(self, argument: Any) -> None:
        """DUP."""
        self._stack.append(self._top())

    def make_list(self, argument: Any) -> None:
        """LIST and FROZENSET."""
        self._stack.append(self._since_mark())

    def make_tuple(self, argument: Any) -> None:
        """TUPLE."""
        self._stack.append(tuple(self._since_mark()))

    def make_dict(self, argument: Any) -> None:
        """DICT."""
        flat = self._since_mark()
        self._stack.append({})
        self._set_items(flat)

    def append(self, argument: Any) -> None:
        """APPEND."""
        self._extend([self.pop()])

    def appends(self, argument: Any) -> None:
        """APPENDS and ADDITEMS."""
        self._extend(self._since_mark())

    def set_item(self, argument: Any) -> None:
        """SETITEM."""
        value, key = self.pop(), self.pop()
        self._set_items([key, value])

    def set_items(self, argument: Any) -> None:
        """SETITEMS."""
        self._set_items(self._since_mark())

    def name(self, argument: Any) -> None:
        """GLOBAL."""
        module, _, attribute = str(argument).partition(" ")
        self._stack.append(Name(module, attribute))

    def stack_name(self, argument: Any) -> None:
        """STACK_GLOBAL."""
        attribute, module = self.pop(), self.pop()
        self._stack.append(Name(str(module)[:200], str(attribute)[:200]))

    def call(self, argument: Any) -> None:
        """REDUCE and NEWOBJ."""
        arguments, function = self.pop(), self.pop()
        self._call(function, arguments)

    def call_with_keywords(self, argument: Any) -> None:
        """NEWOBJ_EX."""
        _, arguments, function = self.pop(), self.pop(), self.pop()
        self._call(function, arguments)

    def call_since_mark(self, argument: Any) -> None:
        """OBJ."""
        function, *arguments = self._since_mark()
        self._call(function, tuple(arguments))

    def call_named(self, argument: Any) -> None:
        """INST."""
        module, _, attribute = str(argument).partition(" ")
        self._call(Name(module, attribute), tuple(self._since_mark()))

    def build(self, argument: Any) -> None:
        """BUILD: the state is dropped; no object here has any."""
        self.pop()
        self._top()

    def reference(self, argument: Any) -> None:
        """BINPERSID."""
        self._stack.append(Reference(self.pop()))

    def text_reference(self, argument: Any) -> None:
        """PERSID."""
        self._stack.append(Reference(argument))


def _inert_call(function: object, arguments: tuple[object, ...]) -> object:
    if function != Name("collections", "OrderedDict"):
        return Call(function, arguments)
    pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
    return {p[0]: p[1] for p in pairs if isinstance(p, (list, tuple)) and len(p) == 2 and isinstance(p[0], _KEY_TYPES)}


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.nothing,
    "FRAME": _Machine.nothing,
    "MARK": _Machine.mark,
    "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_to_mark,
    "DUP": _Machine.duplicate,
    "LIST": _Machine.make_list,
    "FROZENSET": _Machine.make_list,
    "TUPLE": _Machine.make_tuple,
    "DICT": _Machine.make_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "OBJ": _Machine.call_since_mark,
    "INST": _Machine.call_named,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.reference,
    "PERSID": _Machine.text_reference,
}
