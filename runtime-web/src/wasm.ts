/** The C ABI of `runtime.wasm` (see `generated/contracts.ts`): instantiation, the model's side module, typed calls. */

import { ABI_VERSION, DEVICE_TYPES, type RuntimeExports, type RuntimeImports } from "./generated/contracts.js";
import { WebcompileError } from "./errors.js";
import type { KernelInfo } from "./gpu.js";

/** The device that the runtime's imports call. */
export interface RuntimeDevice {
  alloc(nbytes: number): number;
  free(id: number): void;
  write(id: number, offset: number, bytes: Uint8Array): void;
  copy(source: number, sourceOffset: number, target: number, targetOffset: number, nbytes: number): void;
  kernel(name: string, wgsl: string, info: KernelInfo): number;
  launch(id: number, words: Int32Array, buffersAt: number, scalarsAt: number, x: number, y: number, z: number): void;
  /** Remembers an error that must not be thrown through wasm. */
  fail(error: unknown): void;
  /** Throws the remembered error. */
  check(): void;
}

/** A tensor on the device. */
export interface DeviceTensor {
  readonly handle: number;
  /** Id of its buffer. */
  readonly buffer: number;
}

interface Exports extends RuntimeExports {
  readonly memory: WebAssembly.Memory;
  readonly __indirect_function_table: WebAssembly.Table;
  _initialize?(): void;
}

/** One instance of the runtime. It holds one model. */
export class Runtime {
  readonly #exports: Exports;
  readonly #device: RuntimeDevice;
  readonly #memory: MemoryViews;
  #arguments: { address: number; capacity: number };

  private constructor(exports: Exports, memory: MemoryViews, device: RuntimeDevice) {
    this.#exports = exports;
    this.#memory = memory;
    this.#device = device;
    this.#arguments = { address: 0, capacity: 0 };
  }

  /** Instantiates `runtime.wasm` over a device. */
  static async instantiate(module: WebAssembly.Module, device: RuntimeDevice): Promise<Runtime> {
    const memory = new MemoryViews();
    const imports: WebAssembly.Imports = {
      env: { ...deviceImports(device, memory), emscripten_notify_memory_growth: () => undefined },
      wasi_snapshot_preview1: wasi(memory),
    };
    const instance = await instantiateChecked(module, imports, "runtime.wasm");
    const exports = instance.exports as unknown as Exports;
    memory.attach(exports.memory);
    exports._initialize?.();
    const version = exports.wc_abi_version();
    if (version !== ABI_VERSION) {
      throw new WebcompileError(
        "abi_mismatch",
        `runtime.wasm has ABI version ${version}; this package needs ${ABI_VERSION}`,
        "Use the runtime.wasm that comes with this package.",
      );
    }
    return new Runtime(exports, memory, device);
  }

  /** Loads the model's code into the runtime's memory and table (tool-conventions, DynamicLinking). */
  async link(module: WebAssembly.Module): Promise<void> {
    const { memorySize, memoryAlign, tableSize, tableAlign } = dylinkInfo(module);
    const table = this.#exports.__indirect_function_table;
    const raw = this.#alloc(memorySize + memoryAlign);
    const memoryBase = alignUp(raw, memoryAlign);
    this.#memory.bytes.fill(0, memoryBase, memoryBase + memorySize);
    const tableBase = alignUp(table.length, tableAlign);
    table.grow(tableBase + tableSize - table.length);
    const env: Record<string, WebAssembly.ImportValue> = {
      ...(this.#exports as unknown as Record<string, WebAssembly.ImportValue>),
      __memory_base: new WebAssembly.Global({ value: "i32" }, memoryBase),
      __table_base: new WebAssembly.Global({ value: "i32" }, tableBase),
    };
    const { exports } = await instantiateChecked(module, { env }, "the model's module");
    for (const name of ["__wasm_apply_data_relocs", "__wasm_call_ctors"]) {
      const start = exports[name];
      if (typeof start === "function") this.#guard(() => { (start as () => void)(); });
    }
  }

  /** Makes the virtual machine. Kernels are declared to the device meanwhile. */
  open(): void {
    this.#call(() => this.#exports.wc_open(DEVICE_TYPES.webgpu), (result) => result === 0);
  }

  /** Handle of a function of the model. */
  function(name: string): number {
    const address = this.#pass(new TextEncoder().encode(`${name}\0`));
    return this.#call(() => this.#exports.wc_function(address));
  }

  /** A new uninitialized tensor. */
  tensor(dtype: string, shape: readonly number[]): DeviceTensor {
    const name = new TextEncoder().encode(`${dtype}\0`);
    const shapeAt = alignUp(name.length, 4);
    const block = new Uint8Array(shapeAt + 4 * shape.length);
    block.set(name);
    block.set(new Uint8Array(Int32Array.from(shape).buffer), shapeAt);
    const address = this.#pass(block);
    const { webgpu } = DEVICE_TYPES;
    const handle = this.#call(() => this.#exports.wc_tensor(webgpu, address, address + shapeAt, shape.length));
    return { handle, buffer: this.buffer(handle) };
  }

  /** Buffer id of a tensor. */
  buffer(tensor: number): number {
    return this.#call(() => this.#exports.wc_tensor_data(tensor));
  }

  /** Handle of a tuple of tensors. */
  tuple(handles: readonly number[]): number {
    const address = this.#passWords(handles);
    return this.#call(() => this.#exports.wc_tuple(address, handles.length));
  }

  /** Calls a function of the model; handle of its result. Its work is only enqueued. */
  call(callee: number, handles: readonly number[]): number {
    const address = this.#passWords(handles);
    return this.#call(() => this.#exports.wc_call(callee, address, handles.length));
  }

  /** Drops a handle. */
  release(handle: number): void {
    this.#guard(() => this.#exports.wc_release(handle));
  }

  /** Calls an export that returns a handle or an error. */
  #call(run: () => number, isGood = (result: number): boolean => result > 0): number {
    const result = this.#guard(run);
    this.#device.check();
    if (isGood(result)) return result;
    const message = this.#memory.string(this.#guard(() => this.#exports.wc_last_error()));
    const code = /OutOfMemory|MemoryError/i.test(message) ? "out_of_memory" : "internal";
    throw new WebcompileError(code, message === "" ? "the runtime failed and did not say why" : message);
  }

  #guard<T>(run: () => T): T {
    try {
      return run();
    } catch (error) {
      this.#device.check();
      if (error instanceof WebcompileError) throw error;
      throw new WebcompileError("internal", `the wasm runtime failed: ${String(error)}`, "", { cause: error });
    }
  }

  #alloc(nbytes: number): number {
    const address = this.#exports.wc_alloc(nbytes) >>> 0;
    if (address === 0) throw new WebcompileError("out_of_memory", `wasm has no ${nbytes} bytes of memory left`);
    return address;
  }

  #passWords(words: readonly number[]): number {
    const address = this.#room(4 * words.length);
    const at = address / 4;
    for (let i = 0; i < words.length; i++) this.#memory.words[at + i] = words[i] ?? 0;
    return address;
  }

  #pass(bytes: Uint8Array): number {
    const address = this.#room(bytes.length);
    this.#memory.bytes.set(bytes, address);
    return address;
  }

  /** Address of the block that arguments are passed in. */
  #room(nbytes: number): number {
    if (nbytes > this.#arguments.capacity) {
      if (this.#arguments.address !== 0) this.#exports.wc_free(this.#arguments.address);
      const capacity = Math.max(4096, nbytes);
      this.#arguments = { address: this.#alloc(capacity), capacity };
    }
    return this.#arguments.address;
  }
}

/** Views of wasm memory that stay valid when it grows. */
class MemoryViews {
  #memory: WebAssembly.Memory | undefined;
  #bytes = new Uint8Array();
  #words = new Int32Array();

  attach(memory: WebAssembly.Memory): void {
    this.#memory = memory;
  }

  get bytes(): Uint8Array {
    this.#refresh();
    return this.#bytes;
  }

  get words(): Int32Array {
    this.#refresh();
    return this.#words;
  }

  /** The NUL-terminated UTF-8 text at an address. */
  string(address: number): string {
    const bytes = this.bytes;
    const start = address >>> 0;
    return new TextDecoder().decode(bytes.subarray(start, bytes.indexOf(0, start)));
  }

  #refresh(): void {
    if (this.#memory === undefined || this.#memory.buffer === this.#bytes.buffer) return;
    this.#bytes = new Uint8Array(this.#memory.buffer);
    this.#words = new Int32Array(this.#memory.buffer);
  }
}

/** The `wc_gpu_*` functions. JavaScript errors must not cross wasm frames: the device keeps them for the next check. */
function deviceImports(device: RuntimeDevice, memory: MemoryViews): RuntimeImports & WebAssembly.ModuleImports {
  const guarded = <A extends number[]>(run: (...args: A) => number, onError: number) => (...args: A): number => {
    try {
      return run(...args);
    } catch (error) {
      device.fail(error);
      return onError;
    }
  };
  return {
    wc_gpu_alloc: guarded((nbytes: number) => device.alloc(nbytes >>> 0), 0),
    wc_gpu_free: guarded((buffer: number) => {
      device.free(buffer);
      return 0;
    }, -1),
    wc_gpu_write: guarded((buffer: number, offset: number, source: number, nbytes: number) => {
      const start = source >>> 0;
      device.write(buffer, offset >>> 0, memory.bytes.subarray(start, start + (nbytes >>> 0)));
      return 0;
    }, -1),
    wc_gpu_copy: guarded((source: number, sourceOffset: number, target: number, targetOffset: number, nbytes: number) => {
      device.copy(source, sourceOffset >>> 0, target, targetOffset >>> 0, nbytes >>> 0);
      return 0;
    }, -1),
    wc_gpu_kernel: guarded((name: number, wgsl: number, info: number) => {
      const parsed = JSON.parse(memory.string(info)) as KernelInfo;
      return device.kernel(memory.string(name), memory.string(wgsl), parsed);
    }, -1),
    wc_gpu_launch: guarded((kernel: number, buffers: number, scalars: number, x: number, y: number, z: number) => {
      device.launch(kernel, memory.words, buffers >>> 2, scalars >>> 2, x, y, z);
      return 0;
    }, -1),
  };
}

/** The little of WASI that a runtime without files uses. */
function wasi(memory: MemoryViews): WebAssembly.ModuleImports {
  const badFile = 8;
  const output = ["", "", ""];
  return {
    clock_time_get: (_clock: number, _precision: bigint, result: number) => {
      const nanoseconds = BigInt(Math.round(performance.now() * 1e6));
      new DataView(memory.bytes.buffer).setBigUint64(result >>> 0, nanoseconds, true);
      return 0;
    },
    environ_sizes_get: (count: number, size: number) => {
      memory.words[count >>> 2] = 0;
      memory.words[size >>> 2] = 0;
      return 0;
    },
    environ_get: () => 0,
    fd_close: () => 0,
    fd_seek: () => badFile,
    fd_read: () => badFile,
    fd_fdstat_get: () => badFile,
    fd_write: (file: number, vectors: number, count: number, written: number) => {
      let nbytes = 0;
      let text = output[file] ?? "";
      for (let i = 0; i < count; i++) {
        const address = (memory.words[(vectors >>> 2) + 2 * i] ?? 0) >>> 0;
        const length = (memory.words[(vectors >>> 2) + 2 * i + 1] ?? 0) >>> 0;
        text += new TextDecoder().decode(memory.bytes.subarray(address, address + length));
        nbytes += length;
      }
      const lines = text.split("\n");
      output[file] = lines.pop() ?? "";
      for (const line of lines) console.warn(line);
      memory.words[written >>> 2] = nbytes;
      return 0;
    },
    random_get: (address: number, nbytes: number) => {
      const bytes = new Uint8Array(nbytes >>> 0);
      for (let at = 0; at < bytes.length; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536));
      memory.bytes.set(bytes, address >>> 0);
      return 0;
    },
    proc_exit: (status: number) => {
      throw new WebcompileError("internal", `the wasm runtime exited with status ${status}`);
    },
  };
}

/** Instantiates a module, or says which imports it misses. */
async function instantiateChecked(
  module: WebAssembly.Module,
  imports: WebAssembly.Imports,
  what: string,
): Promise<WebAssembly.Instance> {
  const missing = WebAssembly.Module.imports(module).filter((entry) => imports[entry.module]?.[entry.name] === undefined);
  if (missing.length === 0) return WebAssembly.instantiate(module, imports);
  throw new WebcompileError(
    "abi_mismatch",
    `${what} needs ${missing.map((entry) => `${entry.module}.${entry.name}`).join(", ")}, which is not there`,
    "Compile the model and use the runtime.wasm of the same version of webcompile.",
  );
}

/** Memory and table that a side module asks for in its `dylink.0` section. */
function dylinkInfo(module: WebAssembly.Module): {
  memorySize: number;
  memoryAlign: number;
  tableSize: number;
  tableAlign: number;
} {
  const [section] = WebAssembly.Module.customSections(module, "dylink.0");
  const bytes = new Uint8Array(section ?? new ArrayBuffer(0));
  let at = 0;
  const unsigned = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++] ?? 0;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const type = unsigned();
    const end = unsigned() + at;
    if (type === 1) {
      const [memorySize, memoryAlign, tableSize, tableAlign] = [unsigned(), 2 ** unsigned(), unsigned(), 2 ** unsigned()];
      return { memorySize, memoryAlign, tableSize, tableAlign };
    }
    at = end;
  }
  throw new WebcompileError("artifact_invalid", "the model's module has no dylink.0 section", "Compile the model again.");
}

function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
