"""Frozen dataclasses to and from JSON: unknown, missing and wrongly typed keys are errors that name the key."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

from webcompile.errors import WebcompileError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Dataclasses, tuples and plain values to what `json.dumps` takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


def from_json(cls: type[T], data: Any, *, where: str, code: str = "artifact_invalid") -> T:
    """Builds the dataclass `cls` from parsed JSON.

    Raises WebcompileError(code) naming `where` and the key when a key is unknown, missing or of another type.
    """
    return typing.cast(T, _convert(cls, data, where, code))


def _convert(kind: Any, data: Any, where: str, code: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _convert_dataclass(kind, data, where, code)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None and type(None) in args:
            return None
        return _convert(next(arg for arg in args if arg is not type(None)), data, where, code)
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            raise _mismatch(where, "a list", data, code)
        return tuple(_convert(args[0], item, f"{where}[{i}]", code) for i, item in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            raise _mismatch(where, "an object", data, code)
        return {key: _convert(args[1], item, f"{where}.{key}", code) for key, item in data.items()}
    if kind is Any:
        return data
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise _mismatch(where, kind.__name__, data, code)
    return data


def _convert_dataclass(cls: type, data: Any, where: str, code: str) -> Any:
    if not isinstance(data, dict):
        raise _mismatch(where, "an object", data, code)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise WebcompileError(code, f"{where}: unknown key {unknown[0]!r}; known keys: {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], f"{where}.{name}", code)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise WebcompileError(code, f"{where}: key {name!r} is missing")
    return cls(**values)


def _mismatch(where: str, expected: str, data: Any, code: str) -> WebcompileError:
    return WebcompileError(code, f"{where}: expected {expected}, got {type(data).__name__} {str(data)[:80]!r}")
