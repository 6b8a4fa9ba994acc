"""The WebAssembly binary format, as far as linking needs it: numbers, sections, imports and exports.

Names follow the core specification, chapter 5 "Binary Format".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from webcompile.errors import WebcompileError

MAGIC = b"\0asm\1\0\0\0"

CUSTOM, TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START, ELEMENT, CODE, DATA = range(12)
"""Section ids."""

KIND_FUNCTION, KIND_TABLE, KIND_MEMORY, KIND_GLOBAL, KIND_TAG = range(5)
"""Kinds of imports and exports."""


def malformed(what: str) -> WebcompileError:
    """The error for bytes that are not the WebAssembly this package makes or reads."""
    return WebcompileError("link_failed", f"malformed WebAssembly: {what}")


def encode_unsigned(value: int) -> bytes:
    """Unsigned LEB128."""
    encoded = bytearray()
    while True:
        byte = value & 0x7F
        value >>= 7
        if not value:
            encoded.append(byte)
            return bytes(encoded)
        encoded.append(byte | 0x80)


def encode_signed(value: int) -> bytes:
    """Signed LEB128."""
    encoded = bytearray()
    while True:
        byte = value & 0x7F
        value >>= 7
        if value == (-1 if byte & 0x40 else 0):
            encoded.append(byte)
            return bytes(encoded)
        encoded.append(byte | 0x80)


def encode_padded(value: int) -> bytes:
    """LEB128 of a 32-bit value in exactly five bytes, the size that relocatable code reserves.

    A value of either sign: in five bytes, the signed and the unsigned form of the same 32 bits differ only in bits that a
    32-bit reader ignores in the unsigned form and needs in the signed form, so the sign is extended.
    """
    encoded = bytearray()
    for _ in range(4):
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value & 0x7F)
    return bytes(encoded)


def encode_name(name: str) -> bytes:
    """A length and UTF-8 bytes."""
    data = name.encode()
    return encode_unsigned(len(data)) + data


def encode_vector(items: Iterable[bytes]) -> bytes:
    """A count and the items."""
    parts = list(items)
    return encode_unsigned(len(parts)) + b"".join(parts)


def encode_section(section_id: int, content: bytes) -> bytes:
    """A section's id, size and content."""
    return bytes((section_id,)) + encode_unsigned(len(content)) + content


def encode_custom_section(name: str, content: bytes) -> bytes:
    """A custom section."""
    return encode_section(CUSTOM, encode_name(name) + content)


class Reader:
    """Reads the binary format from `data[position:end]`; running over the end is an error, never a wrong value."""

    def __init__(self, data: bytes, position: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = position
        self.end = len(data) if end is None else end

    def take(self, nbytes: int) -> bytes:
        """The next bytes."""
        start = self.position
        if nbytes > self.end - start:
            raise malformed(f"it ends at byte {self.end}, inside an item of {nbytes} bytes at {start}")
        self.position = start + nbytes
        return self.data[start : self.position]

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def unsigned(self) -> int:
        """An unsigned LEB128 number of at most 64 bits."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
            if shift >= 70:
                raise malformed(f"a number before byte {self.position} has no end")

    def signed(self) -> int:
        """A signed LEB128 number of at most 64 bits."""
        start = self.position
        value = self.unsigned()
        bits = 7 * (self.position - start)
        return value - (1 << bits) if value >> (bits - 1) & 1 else value

    def name(self) -> str:
        """A UTF-8 name."""
        try:
            return self.take(self.unsigned()).decode()
        except UnicodeDecodeError as error:
            raise malformed(f"a name before byte {self.position} is not UTF-8") from error

    def limits(self) -> None:
        """Skips the size limits of a table or memory."""
        flags = self.byte()
        self.unsigned()
        if flags & 1:
            self.unsigned()

    def function_type(self) -> bytes:
        """A function type as its bytes; equal bytes are equal types."""
        start = self.position
        if self.byte() != 0x60:
            raise malformed(f"no function type at byte {start}")
        self.take(self.unsigned())
        self.take(self.unsigned())
        return self.data[start : self.position]

    @property
    def at_end(self) -> bool:
        """Whether everything is read."""
        return self.position >= self.end


@dataclass(frozen=True)
class Section:
    """Where a section's content lies in the module."""

    id: int
    start: int
    end: int


@dataclass(frozen=True)
class Import:
    """An import. `type_index` is that of a function and 0 for all else."""

    module: str
    name: str
    kind: int
    type_index: int


def sections(data: bytes) -> Iterator[Section]:
    """The sections of a module in their order."""
    if data[: len(MAGIC)] != MAGIC:
        raise malformed("it does not begin with the WebAssembly version 1 header")
    reader = Reader(data, len(MAGIC))
    while not reader.at_end:
        section_id = reader.byte()
        size = reader.unsigned()
        start = reader.position
        reader.take(size)
        yield Section(section_id, start, start + size)


def read_types(reader: Reader) -> list[bytes]:
    """The type section."""
    return [reader.function_type() for _ in range(reader.unsigned())]


def read_imports(reader: Reader) -> list[Import]:
    """The import section."""
    imports = []
    for _ in range(reader.unsigned()):
        module, name, kind = reader.name(), reader.name(), reader.byte()
        type_index = 0
        if kind == KIND_FUNCTION:
            type_index = reader.unsigned()
        elif kind == KIND_TABLE:
            reader.byte()
            reader.limits()
        elif kind == KIND_MEMORY:
            reader.limits()
        elif kind == KIND_GLOBAL:
            reader.take(2)
        elif kind == KIND_TAG:
            reader.byte()
            reader.unsigned()
        else:
            raise malformed(f"import {module}.{name} has the unknown kind {kind}")
        imports.append(Import(module, name, kind, type_index))
    return imports


@dataclass(frozen=True)
class Interface:
    """What a finished module asks for and offers.

    `imports` are "module.name"; `functions` maps the exported functions to their types; `others` are the other exports.
    """

    imports: tuple[str, ...]
    functions: dict[str, bytes]
    others: frozenset[str]


def read_interface(data: bytes) -> Interface:
    """Reads the imports and exports of a finished module."""
    types: list[bytes] = []
    imports: list[Import] = []
    function_types: list[int] = []
    functions: dict[str, bytes] = {}
    others = set()
    for section in sections(data):
        reader = Reader(data, section.start, section.end)
        if section.id == TYPE:
            types = read_types(reader)
        elif section.id == IMPORT:
            imports = read_imports(reader)
            function_types = [item.type_index for item in imports if item.kind == KIND_FUNCTION]
        elif section.id == FUNCTION:
            function_types += [reader.unsigned() for _ in range(reader.unsigned())]
        elif section.id == EXPORT:
            for _ in range(reader.unsigned()):
                name, kind, index = reader.name(), reader.byte(), reader.unsigned()
                if kind != KIND_FUNCTION:
                    others.add(name)
                elif index < len(function_types) and function_types[index] < len(types):
                    functions[name] = types[function_types[index]]
                else:
                    raise malformed(f"export {name} is not a function of the module")
    return Interface(tuple(f"{item.module}.{item.name}" for item in imports), functions, frozenset(others))


def read_custom_section(data: bytes, name: str) -> bytes | None:
    """The content of the first custom section of that name."""
    for section in sections(data):
        if section.id == CUSTOM:
            reader = Reader(data, section.start, section.end)
            if reader.name() == name:
                return reader.take(section.end - reader.position)
    return None
