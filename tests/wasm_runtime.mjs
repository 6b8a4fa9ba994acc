// The smallest loader of runtime.wasm and a model, for tests: the steps of wasm/README.md and nothing else.
import { readFileSync } from 'node:fs';

/** What the runtime may ask of WASI. Written text ends up in `output`. */
function wasi(memory, output) {
  const view = () => new DataView(memory().buffer);
  return {
    proc_exit: (status) => { throw new Error(`wasm exited with status ${status}`); },
    environ_sizes_get: (count, size) => { view().setUint32(count, 0, true); view().setUint32(size, 0, true); return 0; },
    environ_get: () => 0,
    clock_time_get: (_id, _precision, result) => {
      view().setBigUint64(result, BigInt(Math.round(performance.now() * 1e6)), true);
      return 0;
    },
    fd_close: () => 0,
    fd_read: () => 8,
    fd_seek: () => 70,
    fd_write: (_fd, vectors, count, written) => {
      let total = 0;
      for (let i = 0; i < count; i++) {
        const address = view().getUint32(vectors + 8 * i, true);
        const size = view().getUint32(vectors + 8 * i + 4, true);
        output.push(new TextDecoder().decode(new Uint8Array(memory().buffer, address, size)));
        total += size;
      }
      view().setUint32(written, total, true);
      return 0;
    },
  };
}

/** The sizes in a side module's dylink.0 section (tool-conventions, DynamicLinking.md). */
function memoryInfo(module) {
  const bytes = new Uint8Array(WebAssembly.Module.customSections(module, 'dylink.0')[0]);
  let position = 0;
  const next = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[position++];
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  if (next() !== 1) throw new Error('the first subsection is not WASM_DYLINK_MEM_INFO');
  next(); // its size
  return { memorySize: next(), memoryAlignment: 2 ** next(), tableSize: next(), tableAlignment: 2 ** next() };
}

/** wc_gpu_* that record their calls and compute nothing. */
export function recordingGpu() {
  const calls = [];
  let buffers = 0;
  let kernels = 0;
  const gpu = {
    calls,
    arity: [], // per kernel: [buffers, scalars]
    outOfMemory: false,
    exports: null,
    imports: {
      wc_gpu_alloc: (nbytes) => {
        if (gpu.outOfMemory) return 0;
        calls.push(['alloc', ++buffers, nbytes]);
        return buffers;
      },
      wc_gpu_free: (buffer) => { calls.push(['free', buffer]); return 0; },
      wc_gpu_write: (buffer, offset, source, nbytes) => {
        calls.push(['write', buffer, offset, [...new Uint8Array(gpu.exports.memory.buffer, source, nbytes)]]);
        return 0;
      },
      wc_gpu_copy: (...args) => { calls.push(['copy', ...args]); return 0; },
      wc_gpu_kernel: (name, wgsl, info) => {
        const parsed = JSON.parse(gpu.string(info));
        const handles = parsed.arg_types.filter((type) => type === 'handle').length;
        gpu.arity.push([handles, parsed.arg_types.length - handles]);
        calls.push(['kernel', kernels, gpu.string(name), gpu.string(wgsl), parsed]);
        return kernels++;
      },
      wc_gpu_launch: (kernel, bufferIds, scalars, x, y, z) => {
        const [numBuffers, numScalars] = gpu.arity[kernel];
        const ints = (address, count) => [...new Int32Array(gpu.exports.memory.buffer, address, count)];
        calls.push(['launch', kernel, ints(bufferIds, numBuffers), ints(scalars, numScalars), [x, y, z]]);
        return 0;
      },
    },
  };
  return gpu;
}

export class Runtime {
  /** Instantiates the runtime and, when given, a model's side module. */
  constructor(runtimePath, modelPath = null, gpu = recordingGpu()) {
    this.output = [];
    this.gpu = gpu;
    const runtime = new WebAssembly.Module(readFileSync(runtimePath));
    const imports = { env: gpu.imports, wasi_snapshot_preview1: wasi(() => this.exports.memory, this.output) };
    this.exports = new WebAssembly.Instance(runtime, imports).exports;
    gpu.exports = this.exports;
    gpu.string = (address) => this.string(address);
    this.exports._initialize();
    if (modelPath !== null) this.link(new WebAssembly.Module(readFileSync(modelPath)));
  }

  link(model) {
    const { memorySize, memoryAlignment, tableSize, tableAlignment } = memoryInfo(model);
    const memory = this.exports.wc_alloc(memorySize + memoryAlignment) >>> 0;
    const memoryBase = Math.ceil(memory / memoryAlignment) * memoryAlignment;
    new Uint8Array(this.exports.memory.buffer, memoryBase, memorySize).fill(0xee); // the model must not rely on zeros
    const table = this.exports.__indirect_function_table;
    const tableBase = Math.ceil(table.length / tableAlignment) * tableAlignment;
    table.grow(tableBase + tableSize - table.length);
    Object.assign(this, { memoryBase, memorySize });
    const constant = (value) => new WebAssembly.Global({ value: 'i32', mutable: false }, value);
    const env = { ...this.exports, __memory_base: constant(memoryBase), __table_base: constant(tableBase) };
    new WebAssembly.Instance(model, { env }).exports.__wasm_call_ctors();
  }

  string(address) {
    const bytes = new Uint8Array(this.exports.memory.buffer, address >>> 0);
    return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
  }

  get lastError() {
    return this.string(this.exports.wc_last_error());
  }

  /** Calls an export with strings and number arrays passed through wasm memory; throws the runtime's error. */
  call(name, ...args) {
    const owned = [];
    const raw = args.map((arg) => {
      if (typeof arg === 'number') return arg;
      const bytes = typeof arg === 'string' ? new TextEncoder().encode(`${arg}\0`) : new Uint8Array(Int32Array.from(arg).buffer);
      const address = this.exports.wc_alloc(bytes.length) >>> 0;
      new Uint8Array(this.exports.memory.buffer, address).set(bytes);
      owned.push(address);
      return address;
    });
    const result = this.exports[name](...raw);
    owned.forEach((address) => this.exports.wc_free(address));
    const failure = name === 'wc_open' || name === 'wc_release' ? -1 : 0;
    if (result === failure) throw new Error(this.lastError);
    return result;
  }

  tensor(deviceType, dtype, shape) {
    return this.call('wc_tensor', deviceType, dtype, shape, shape.length);
  }

  /** A float32 tensor in wasm memory with these values. */
  floats(shape, values) {
    const tensor = this.tensor(1, 'float32', shape);
    new Float32Array(this.exports.memory.buffer, this.call('wc_tensor_data', tensor) >>> 0, values.length).set(values);
    return tensor;
  }

  readFloats(tensor, count) {
    return [...new Float32Array(this.exports.memory.buffer, this.call('wc_tensor_data', tensor) >>> 0, count)];
  }

  invoke(name, ...handles) {
    const callee = this.call('wc_function', name);
    try {
      return this.call('wc_call', callee, handles, handles.length);
    } finally {
      this.call('wc_release', callee);
    }
  }
}
