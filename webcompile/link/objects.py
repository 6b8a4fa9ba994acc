"""Reads relocatable WebAssembly objects, as LLVM writes them.

The format: tool-conventions, Linking.md ("Object file linking", https://github.com/WebAssembly/tool-conventions).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from webcompile.link import wasm
from webcompile.link.wasm import Reader, malformed

LINKING_VERSION = 2

SYMBOL_FUNCTION, SYMBOL_DATA, SYMBOL_GLOBAL, SYMBOL_SECTION, SYMBOL_TAG, SYMBOL_TABLE = range(6)
_SYMBOL_NAMESPACE = {
    SYMBOL_FUNCTION: wasm.KIND_FUNCTION,
    SYMBOL_GLOBAL: wasm.KIND_GLOBAL,
    SYMBOL_TAG: wasm.KIND_TAG,
    SYMBOL_TABLE: wasm.KIND_TABLE,
}
_BINDING_WEAK, _BINDING_LOCAL, _BINDING_MASK = 1, 2, 3
_UNDEFINED, _EXPLICIT_NAME = 0x10, 0x40

_SEGMENT_INFO, _INIT_FUNCTIONS, _SYMBOL_TABLE = 5, 6, 8
"""Subsections of the "linking" section."""

FUNCTION_INDEX_LEB, TABLE_INDEX_I32, MEMORY_ADDR_I32, TYPE_INDEX_LEB, GLOBAL_INDEX_LEB = 0, 2, 5, 6, 7
MEMORY_ADDR_REL_SLEB, TABLE_INDEX_REL_SLEB, TABLE_NUMBER_LEB = 11, 12, 20
"""Relocation types R_WASM_*: those of position-independent wasm32 code and data."""

_MAX_ALIGNMENT_LOG2 = 16
_WITH_ADDEND = frozenset({3, 4, 5, 8, 9, 11, 14, 15, 16, 17, 21, 22, 23, 25})


@dataclass(frozen=True)
class Symbol:
    """One entry of the symbol table. `index` is that of the function, global, table, tag or data segment."""

    kind: int
    name: str
    index: int
    is_undefined: bool
    is_weak: bool
    is_local: bool
    offset: int = 0


@dataclass(frozen=True)
class Relocation:
    """A place in a section's content to fill in. `index` is that of a symbol, or of a type for TYPE_INDEX_LEB."""

    type: int
    offset: int
    index: int
    addend: int


@dataclass(frozen=True)
class Segment:
    """A data segment: its bytes lie at `start` in the data section's content. `alignment` is a power of two."""

    name: str
    alignment: int
    start: int
    nbytes: int

    @property
    def is_zero(self) -> bool:
        """Whether the segment holds zeros only, which need no bytes in the module."""
        return self.name.startswith(".bss")


@dataclass
class ObjectFile:
    """A relocatable object. `code` and `data` are the contents of those sections, to be relocated in place."""

    types: list[bytes] = field(default_factory=list)
    imports: list[wasm.Import] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    code: bytearray = field(default_factory=bytearray)
    data: bytearray = field(default_factory=bytearray)
    segments: list[Segment] = field(default_factory=list)
    symbols: list[Symbol] = field(default_factory=list)
    init_functions: list[tuple[int, int]] = field(default_factory=list)
    code_relocations: list[Relocation] = field(default_factory=list)
    data_relocations: list[Relocation] = field(default_factory=list)

    def imports_of(self, kind: int) -> list[wasm.Import]:
        """The imports of one kind; they come first in that kind's index space."""
        return [item for item in self.imports if item.kind == kind]

    def function_bodies(self) -> list[bytes]:
        """The functions' code, each without its size."""
        reader = Reader(bytes(self.code))
        bodies = [reader.take(reader.unsigned()) for _ in range(reader.unsigned())] if self.code else []
        if len(bodies) != len(self.functions):
            raise malformed(f"{len(self.functions)} functions are declared and {len(bodies)} have code")
        return bodies


def read_object(data: bytes) -> ObjectFile:
    """Reads a relocatable object; one for another machine, or a finished module, is an error."""
    result = ObjectFile()
    ids: list[int] = []
    segment_spans: list[tuple[int, int]] = []
    segment_infos: list[tuple[str, int]] = []
    is_relocatable = False
    for section in wasm.sections(data):
        ids.append(section.id)
        reader = Reader(data, section.start, section.end)
        if section.id == wasm.TYPE:
            result.types = wasm.read_types(reader)
        elif section.id == wasm.IMPORT:
            result.imports = wasm.read_imports(reader)
        elif section.id == wasm.FUNCTION:
            result.functions = [reader.unsigned() for _ in range(reader.unsigned())]
        elif section.id == wasm.CODE:
            result.code = bytearray(reader.take(section.end - section.start))
        elif section.id == wasm.DATA:
            result.data = bytearray(data[section.start : section.end])
            segment_spans = _read_segment_spans(Reader(data[section.start : section.end]))
        elif section.id == wasm.CUSTOM:
            name = reader.name()
            if name == "linking":
                is_relocatable = True
                segment_infos = _read_linking(reader, result)
            elif name.startswith("reloc."):
                _read_relocations(reader, ids, result)
    if not is_relocatable:
        raise malformed("it is not a relocatable object (no linking section)")
    if len(segment_infos) != len(segment_spans):
        raise malformed(f"{len(segment_spans)} data segments and {len(segment_infos)} descriptions of them")
    result.segments = [
        Segment(name, alignment, start, nbytes)
        for (name, alignment), (start, nbytes) in zip(segment_infos, segment_spans, strict=True)
    ]
    return result


def _read_segment_spans(reader: Reader) -> list[tuple[int, int]]:
    spans = []
    for _ in range(reader.unsigned()):
        flags = reader.unsigned()
        if flags == 2:
            reader.unsigned()
        if flags != 1:  # an active segment; an object's offset is an i32.const that linking replaces
            if reader.byte() != 0x41:
                raise malformed("a data segment's offset is not a constant")
            reader.signed()
            reader.byte()
        nbytes = reader.unsigned()
        spans.append((reader.position, nbytes))
        reader.take(nbytes)
    return spans


def _read_linking(reader: Reader, result: ObjectFile) -> list[tuple[str, int]]:
    """Fills in symbols and init functions; returns name and alignment of the data segments."""
    version = reader.unsigned()
    if version != LINKING_VERSION:
        raise malformed(f"linking metadata of version {version}, expected {LINKING_VERSION}")
    segment_infos: list[tuple[str, int]] = []
    while not reader.at_end:
        kind, size = reader.byte(), reader.unsigned()
        start = reader.position
        reader.take(size)
        part = Reader(reader.data, start, start + size)
        if kind == _SYMBOL_TABLE:
            result.symbols = [_read_symbol(part, result) for _ in range(part.unsigned())]
        elif kind == _SEGMENT_INFO:
            for _ in range(part.unsigned()):
                name, alignment_log2, _ = part.name(), part.unsigned(), part.unsigned()
                if alignment_log2 > _MAX_ALIGNMENT_LOG2:
                    raise malformed(f"the data segment {name} wants to be aligned to 2^{alignment_log2} bytes")
                segment_infos.append((name, 1 << alignment_log2))
        elif kind == _INIT_FUNCTIONS:
            result.init_functions = [(part.unsigned(), part.unsigned()) for _ in range(part.unsigned())]
    return segment_infos


def _read_symbol(reader: Reader, result: ObjectFile) -> Symbol:
    kind, flags = reader.byte(), reader.unsigned()
    is_undefined = bool(flags & _UNDEFINED)
    is_weak = flags & _BINDING_MASK == _BINDING_WEAK
    is_local = flags & _BINDING_MASK == _BINDING_LOCAL
    name, index, offset = "", 0, 0
    if kind == SYMBOL_DATA:
        name = reader.name()
        if not is_undefined:
            index, offset, _ = reader.unsigned(), reader.unsigned(), reader.unsigned()
    elif kind == SYMBOL_SECTION:
        index = reader.unsigned()
    elif kind in _SYMBOL_NAMESPACE:
        index = reader.unsigned()
        if not is_undefined or flags & _EXPLICIT_NAME:
            name = reader.name()
        else:
            candidates = result.imports_of(_SYMBOL_NAMESPACE[kind])
            if index >= len(candidates):
                raise malformed(f"an undefined symbol refers to import {index} of {len(candidates)}")
            name = candidates[index].name
    else:
        raise malformed(f"a symbol of the unknown kind {kind}")
    return Symbol(kind, name, index, is_undefined, is_weak, is_local, offset)


def _read_relocations(reader: Reader, ids: list[int], result: ObjectFile) -> None:
    section = reader.unsigned()
    if section >= len(ids):
        raise malformed(f"relocations for section {section} of {len(ids)}")
    relocations = []
    for _ in range(reader.unsigned()):
        kind, offset, index = reader.byte(), reader.unsigned(), reader.unsigned()
        relocations.append(Relocation(kind, offset, index, reader.signed() if kind in _WITH_ADDEND else 0))
    if ids[section] == wasm.CODE:
        result.code_relocations = relocations
    elif ids[section] == wasm.DATA:
        result.data_relocations = relocations
    # All other sections hold debugging information, which is not linked.
