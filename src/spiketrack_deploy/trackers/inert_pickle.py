"""Reads a pickle without executing anything in it.

This module decides what each request of a pickle for code becomes: an inert record. It must not know tensors, files or
PyTorch. The standard library decodes the instructions, in its form written in Python (``pickle._Unpickler``), because
the compiled ``pickle.Unpickler`` cannot be made safe by ``find_class`` and ``persistent_load`` alone. It hashes what
stands as a key of a dictionary or in a set: a tuple nested two million deep ends the process, one of 40 nested pairs
takes hours. It calls what ``find_class`` returned with a copy of the arguments, and makes a memo or a bytearray of any
size that the file names. So the instructions that call, build, hash or allocate are replaced here.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from typing import Any, ClassVar

MAX_BYTES = 8 << 20
"""Bounds time and memory (worst found: 8 s, 0.7 GiB); 1,000 tensors and their optimiser take half a megabyte."""


class BrokenPickle(ValueError):
    """The bytes are no complete pickle; the text says why."""


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the pickle names. It is never imported."""

    module: str
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call or construction that the pickle asks for, never carried out; what would be added to it is dropped."""

    function: object
    arguments: tuple[object, ...] = field(repr=False)

    def extend(self, items: object) -> None:
        """Stands for a list or set being filled."""

    append = extend


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A persistent id: where the writer stored something outside the pickle."""

    identity: object = field(repr=False)


UNUSABLE_KEY = Name("builtins", "unusable key")
"""Stands for a dictionary key that is no text, number of 64 bits, or constant."""


def read_pickle(data: bytes) -> object:
    """The object that ``data`` describes, with :class:`Name`, :class:`Call` and :class:`Reference` in place of code.

    Sets become lists, an ``OrderedDict`` a dict; see :data:`UNUSABLE_KEY`. Raises :class:`BrokenPickle` for anything
    that is no complete pickle, is larger than :data:`MAX_BYTES`, or asks for an extension registry or buffers.
    """
    if len(data) > MAX_BYTES:
        raise BrokenPickle(f"its pickle of {len(data):,} bytes is larger than {MAX_BYTES >> 20} MiB; no checkpoint is")
    try:
        return _Machine(io.BytesIO(data), encoding="latin-1").load()
    except BrokenPickle:
        raise
    except EOFError as error:
        raise BrokenPickle("the pickle ends too early") from error
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
        pickle.UnpicklingError,
    ) as error:
        raise BrokenPickle(f"the pickle is damaged ({type(error).__name__})") from error


def _call(machine: Any) -> None:
    """REDUCE, NEWOBJ."""
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine._instantiate(function, arguments if isinstance(arguments, tuple) else ())


def _call_with_keywords(machine: Any) -> None:
    """NEWOBJ_EX."""
    machine.stack.pop()
    _call(machine)


def _drop_state(machine: Any) -> None:
    """BUILD: no object here has any state."""
    machine.stack.pop()


def _make_dict(machine: Any) -> None:
    """DICT."""
    items = machine.pop_mark()
    machine.append({})
    _fill(machine, items)


def _set_item(machine: Any) -> None:
    """SETITEM."""
    value, key = machine.stack.pop(), machine.stack.pop()
    _fill(machine, [key, value])


def _set_items(machine: Any) -> None:
    """SETITEMS."""
    _fill(machine, machine.pop_mark())


def _fill(machine: Any, items: list[object]) -> None:
    if len(items) % 2:
        raise BrokenPickle("the pickle is damaged (a key without value)")
    if isinstance(machine.stack[-1], dict):
        machine.stack[-1].update((_key(key), value) for key, value in zip(items[::2], items[1::2]))


def _key(key: object) -> object:
    plain = key is None or isinstance(key, (str, bytes, float)) or (isinstance(key, int) and key.bit_length() <= 64)
    return key if plain else UNUSABLE_KEY


def _refuse(machine: Any) -> None:
    raise BrokenPickle("the pickle uses an instruction that no checkpoint needs")


class _Machine(pickle._Unpickler):
    """Stack and memo of one pickle."""

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _call,
        pickle.NEWOBJ_EX[0]: _call_with_keywords,
        pickle.BUILD[0]: _drop_state,
        pickle.DICT[0]: _make_dict,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.EMPTY_SET[0]: pickle._Unpickler.dispatch[pickle.EMPTY_LIST[0]],
        pickle.FROZENSET[0]: pickle._Unpickler.dispatch[pickle.LIST[0]],
        pickle.ADDITEMS[0]: pickle._Unpickler.dispatch[pickle.APPENDS[0]],
        **{code[0]: _refuse for code in (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.BYTEARRAY8)},
    }

    def find_class(self, module: str, name: str) -> Name:
        return Name(module, name)

    def persistent_load(self, identity: object) -> Reference:
        return Reference(identity)

    def _instantiate(self: Any, function: object, arguments: Any) -> None:
        """Also what INST and OBJ of the first protocols end in."""
        plain = function == Name("collections", "OrderedDict") and not arguments
        self.append({} if plain else Call(function, tuple(arguments)))
