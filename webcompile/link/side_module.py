"""Links relocatable objects into a side module of runtime.wasm.

The result follows tool-conventions, DynamicLinking.md: a "dylink.0" section says how much memory and how many table slots
to reserve; the module imports `env.memory`, `env.__indirect_function_table`, `env.__stack_pointer`, `env.__memory_base`,
`env.__table_base` and functions of the runtime, and exports `__wasm_call_ctors`. That function also clears the zero-filled
data and fills in addresses, so that a loader has nothing else to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from webcompile.errors import WebcompileError
from webcompile.link import objects, wasm
from webcompile.link.objects import ObjectFile, Relocation, Symbol, read_object
from webcompile.link.wasm import encode_name, encode_section, encode_signed, encode_unsigned, encode_vector, malformed

CONSTRUCTORS = "__wasm_call_ctors"
_DYLINK_MEM_INFO = 1
_RUNTIME_EXPORTS = frozenset({"memory", "__indirect_function_table", "__stack_pointer"})

_I32, _FUNCREF = b"\x7f", b"\x70"
_CONST, _MUTABLE = b"\0", b"\1"
_STACK_POINTER, _MEMORY_BASE, _TABLE_BASE, _FIRST_OWN_GLOBAL = range(4)
_GLOBALS = {"__stack_pointer": _STACK_POINTER, "__memory_base": _MEMORY_BASE, "__table_base": _TABLE_BASE}

# Instructions.
_CALL, _GLOBAL_GET, _GLOBAL_SET, _I32_CONST, _I32_ADD, _END = b"\x10", b"\x23", b"\x24", b"\x41", b"\x6a", b"\x0b"
_I32_STORE_UNALIGNED = b"\x36\0"
_MEMORY_FILL = b"\xfc\x0b\0"

_NO_PARAMS_NO_RESULTS = b"\x60\0\0"


@dataclass(frozen=True)
class _Definition:
    """Where a symbol is defined: the object's number and its entry there."""

    owner: int
    symbol: Symbol


class _Linker:
    """One link. The methods run in the order in which `link_side_module` calls them."""

    def __init__(self, inputs: Sequence[bytes], runtime: bytes) -> None:
        self.inputs = [read_object(data) for data in inputs]
        self.runtime = wasm.read_interface(runtime)
        self.definitions: dict[tuple[bool, str], _Definition] = {}
        self.types: dict[bytes, int] = {}
        self.imports: dict[str, tuple[int, int]] = {}  # name of a runtime function → function index, type
        self.function_bases: list[int] = []  # per object: function index of its first own function
        self.addresses: dict[tuple[int, int], int] = {}  # object, segment → offset from the memory base
        self.memory_size = self.initialized_size = 0
        self.alignment = 1
        self.table: dict[int, int] = {}  # function index → offset from the table base
        self.global_offsets: dict[tuple[bool, int], int] = {}  # is function, table slot or address → number of our global
        self.startup = bytearray()

    def resolve_symbols(self) -> None:
        """Finds the definition of every name; a strong one beats a weak one."""
        for owner, item in enumerate(self.inputs):
            for symbol in item.symbols:
                if symbol.is_undefined or symbol.is_local:
                    continue
                if symbol.kind not in (objects.SYMBOL_FUNCTION, objects.SYMBOL_DATA):
                    continue
                key = (symbol.kind == objects.SYMBOL_FUNCTION, symbol.name)
                known = self.definitions.get(key)
                if known is not None and not known.symbol.is_weak and not symbol.is_weak:
                    raise WebcompileError("link_failed", f"the symbol {symbol.name} is defined twice")
                if known is None or (known.symbol.is_weak and not symbol.is_weak):
                    self.definitions[key] = _Definition(owner, symbol)

    def import_functions(self) -> None:
        """Takes what no object defines from the runtime; names everything that it lacks or has with another type."""
        missing = {name: name for name in _RUNTIME_EXPORTS - self.runtime.others}
        for item in self.inputs:
            for symbol in item.symbols:
                if symbol.is_undefined and (symbol.kind == objects.SYMBOL_FUNCTION, symbol.name) not in self.definitions:
                    problem = self.import_symbol(item, symbol)
                    if problem is not None:
                        missing[symbol.name] = symbol.name + problem
        if missing:
            raise WebcompileError(
                "link_failed",
                f"runtime.wasm does not provide {', '.join(missing[name] for name in sorted(missing))}",
                "the model uses an operation that the wasm runtime lacks; "
                "webcompile/link/build_runtime.py lists what it has",
            )

    def import_symbol(self, item: ObjectFile, symbol: Symbol) -> str | None:
        """Imports an undefined symbol, or says why it cannot be: a suffix for its name."""
        if symbol.kind == objects.SYMBOL_FUNCTION:
            function_type = item.types[item.imports_of(wasm.KIND_FUNCTION)[symbol.index].type_index]
            offered = self.runtime.functions.get(symbol.name)
            if offered is None:
                return ""
            if offered != function_type:
                return " (with another signature)"
            self.imports.setdefault(symbol.name, (len(self.imports), self.type_index(function_type)))
            return None
        if symbol.kind == objects.SYMBOL_GLOBAL:
            return None if symbol.name in _GLOBALS else " (a global)"
        if symbol.kind == objects.SYMBOL_TABLE:
            return None if symbol.name in _RUNTIME_EXPORTS else " (a table)"
        return " (data)" if symbol.kind == objects.SYMBOL_DATA else " (an exception tag)"

    def place_functions_and_data(self) -> None:
        """Gives every function an index and every segment an address: zero-filled ones last, as they need no bytes."""
        next_function = len(self.imports)
        for item in self.inputs:
            self.function_bases.append(next_function)
            next_function += len(item.functions)
        for zero in (False, True):
            for owner, item in enumerate(self.inputs):
                for number, segment in enumerate(item.segments):
                    if segment.is_zero == zero:
                        self.alignment = max(self.alignment, segment.alignment)
                        self.memory_size = -(-self.memory_size // segment.alignment) * segment.alignment
                        self.addresses[owner, number] = self.memory_size
                        self.memory_size += segment.nbytes
            if not zero:
                self.initialized_size = self.memory_size

    def relocate(self) -> None:
        """Fills in the code, and notes for the start-up what only the loader's base addresses decide."""
        for owner, item in enumerate(self.inputs):
            for relocation in item.code_relocations:
                if relocation.offset + 5 > len(item.code):
                    raise malformed(f"a relocation at byte {relocation.offset} of {len(item.code)} bytes of code")
                value = self.code_value(owner, item, relocation)
                item.code[relocation.offset : relocation.offset + 5] = wasm.encode_padded(value)
            for relocation in item.data_relocations:
                self.relocate_data(owner, item, relocation)

    def code_value(self, owner: int, item: ObjectFile, relocation: Relocation) -> int:
        """What a relocation of the code section writes."""
        if relocation.type == objects.TYPE_INDEX_LEB:
            return self.type_index(item.types[relocation.index])
        if relocation.type == objects.TABLE_NUMBER_LEB:
            return 0
        symbol = item.symbols[relocation.index]
        if relocation.type == objects.FUNCTION_INDEX_LEB:
            return self.function_index(owner, symbol)
        if relocation.type == objects.GLOBAL_INDEX_LEB:
            return self.global_index(owner, symbol)
        if relocation.type == objects.MEMORY_ADDR_REL_SLEB:
            return self.address(owner, symbol) + relocation.addend
        if relocation.type == objects.TABLE_INDEX_REL_SLEB:
            return self.table_slot(self.function_index(owner, symbol))
        raise _not_position_independent(relocation)

    def relocate_data(self, owner: int, item: ObjectFile, relocation: Relocation) -> None:
        """An address within data: stored by the start-up, when the bases are known."""
        number, segment = next(
            (number, segment)
            for number, segment in enumerate(item.segments)
            if segment.start <= relocation.offset < segment.start + segment.nbytes
        )
        symbol = item.symbols[relocation.index]
        if relocation.type == objects.MEMORY_ADDR_I32:
            base, value = _MEMORY_BASE, self.address(owner, symbol) + relocation.addend
        elif relocation.type == objects.TABLE_INDEX_I32:
            base, value = _TABLE_BASE, self.table_slot(self.function_index(owner, symbol))
        else:
            raise _not_position_independent(relocation)
        place = self.addresses[owner, number] + relocation.offset - segment.start
        self.startup += _GLOBAL_GET + encode_unsigned(_MEMORY_BASE) + _base_plus(base, value)
        self.startup += _I32_STORE_UNALIGNED + encode_unsigned(place)

    def constructors(self) -> bytes:
        """The code of `__wasm_call_ctors`."""
        code = bytearray(b"\0")  # no locals
        if self.memory_size > self.initialized_size:
            code += _base_plus(_MEMORY_BASE, self.initialized_size)
            code += _I32_CONST + encode_signed(0)
            code += _I32_CONST + encode_signed(self.memory_size - self.initialized_size) + _MEMORY_FILL
        for (is_function, value), number in self.global_offsets.items():
            code += _base_plus(_TABLE_BASE if is_function else _MEMORY_BASE, value)
            code += _GLOBAL_SET + encode_unsigned(_FIRST_OWN_GLOBAL + number)
        code += self.startup
        initializers = [
            (priority, owner, self.function_index(owner, item.symbols[index]))
            for owner, item in enumerate(self.inputs)
            for priority, index in item.init_functions
        ]
        for _, _, function in sorted(initializers):
            code += _CALL + encode_unsigned(function)
        return bytes(code + _END)

    def write(self) -> bytes:
        """The finished module."""
        bodies, function_types = [], []
        for item in self.inputs:
            bodies += item.function_bodies()
            function_types += [self.type_index(item.types[index]) for index in item.functions]
        constructors_index = len(self.imports) + len(bodies)
        bodies.append(self.constructors())
        function_types.append(self.type_index(_NO_PARAMS_NO_RESULTS))

        memory = bytearray(self.initialized_size)
        for owner, item in enumerate(self.inputs):
            for number, segment in enumerate(item.segments):
                if not segment.is_zero:
                    place = self.addresses[owner, number]
                    memory[place : place + segment.nbytes] = item.data[segment.start : segment.start + segment.nbytes]

        sizes = (self.memory_size, self.alignment.bit_length() - 1, len(self.table), 0)
        mem_info = b"".join(encode_unsigned(size) for size in sizes)
        env = encode_name("env")
        imports = [
            env + encode_name("memory") + bytes((wasm.KIND_MEMORY,)) + b"\0" + encode_unsigned(1),
            env + encode_name("__indirect_function_table") + bytes((wasm.KIND_TABLE,)) + _FUNCREF + b"\0\0",
            env + encode_name("__stack_pointer") + bytes((wasm.KIND_GLOBAL,)) + _I32 + _MUTABLE,
            env + encode_name("__memory_base") + bytes((wasm.KIND_GLOBAL,)) + _I32 + _CONST,
            env + encode_name("__table_base") + bytes((wasm.KIND_GLOBAL,)) + _I32 + _CONST,
        ]
        for name, (_, type_index) in self.imports.items():
            imports.append(env + encode_name(name) + bytes((wasm.KIND_FUNCTION,)) + encode_unsigned(type_index))
        own_global = _I32 + _MUTABLE + _I32_CONST + encode_signed(0) + _END
        export = encode_name(CONSTRUCTORS) + bytes((wasm.KIND_FUNCTION,)) + encode_unsigned(constructors_index)
        table_offset = _GLOBAL_GET + encode_unsigned(_TABLE_BASE) + _END
        memory_offset = _GLOBAL_GET + encode_unsigned(_MEMORY_BASE) + _END

        parts = [
            wasm.MAGIC,
            wasm.encode_custom_section("dylink.0", bytes((_DYLINK_MEM_INFO,)) + encode_unsigned(len(mem_info)) + mem_info),
            encode_section(wasm.TYPE, encode_vector(self.types)),
            encode_section(wasm.IMPORT, encode_vector(imports)),
            encode_section(wasm.FUNCTION, encode_vector(map(encode_unsigned, function_types))),
        ]
        if self.global_offsets:
            parts.append(encode_section(wasm.GLOBAL, encode_vector([own_global] * len(self.global_offsets))))
        parts.append(encode_section(wasm.EXPORT, encode_vector([export])))
        if self.table:
            slots = encode_vector(map(encode_unsigned, self.table))
            parts.append(encode_section(wasm.ELEMENT, encode_vector([b"\0" + table_offset + slots])))
        parts.append(encode_section(wasm.CODE, encode_vector(encode_unsigned(len(body)) + body for body in bodies)))
        if memory:
            content = b"\0" + memory_offset + encode_unsigned(len(memory)) + bytes(memory)
            parts.append(encode_section(wasm.DATA, encode_vector([content])))
        return b"".join(parts)

    def type_index(self, function_type: bytes) -> int:
        return self.types.setdefault(function_type, len(self.types))

    def definition(self, owner: int, symbol: Symbol) -> _Definition:
        if symbol.is_local:
            return _Definition(owner, symbol)
        is_function = symbol.kind == objects.SYMBOL_FUNCTION
        return self.definitions.get((is_function, symbol.name), _Definition(owner, symbol))

    def function_index(self, owner: int, symbol: Symbol) -> int:
        found = self.definition(owner, symbol)
        if found.symbol.is_undefined:
            return self.imports[found.symbol.name][0]
        num_imports = len(self.inputs[found.owner].imports_of(wasm.KIND_FUNCTION))
        return self.function_bases[found.owner] + found.symbol.index - num_imports

    def address(self, owner: int, symbol: Symbol) -> int:
        found = self.definition(owner, symbol)
        return self.addresses[found.owner, found.symbol.index] + found.symbol.offset

    def table_slot(self, function: int) -> int:
        return self.table.setdefault(function, len(self.table))

    def global_index(self, owner: int, symbol: Symbol) -> int:
        """An imported global, or one of ours that holds a function's or datum's absolute address (a "GOT" entry)."""
        if symbol.kind == objects.SYMBOL_GLOBAL:
            return _GLOBALS[symbol.name]
        is_function = symbol.kind == objects.SYMBOL_FUNCTION
        value = self.table_slot(self.function_index(owner, symbol)) if is_function else self.address(owner, symbol)
        return _FIRST_OWN_GLOBAL + self.global_offsets.setdefault((is_function, value), len(self.global_offsets))


def link_side_module(inputs: Sequence[bytes], runtime: bytes) -> bytes:
    """Links objects (PIC, wasm32) against the runtime. The same inputs give the same bytes.

    Raises:
        WebcompileError: `link_failed`; an import that the runtime lacks is named.
    """
    linker = _Linker(inputs, runtime)
    try:
        linker.resolve_symbols()
        linker.import_functions()
        linker.place_functions_and_data()
        linker.relocate()
        return linker.write()
    except (IndexError, KeyError, StopIteration) as error:
        raise malformed(f"an object refers to something it does not have ({error})") from error


def _base_plus(base: int, offset: int) -> bytes:
    return _GLOBAL_GET + encode_unsigned(base) + _I32_CONST + encode_signed(offset) + _I32_ADD


def _not_position_independent(relocation: Relocation) -> WebcompileError:
    return malformed(f"relocation type {relocation.type}: the object is not position-independent wasm32 code")
