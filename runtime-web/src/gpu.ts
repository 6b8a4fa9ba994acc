/**
 * The device under TVM's virtual machine: buffers, kernels and one stream of commands.
 *
 * Commands are recorded into one encoder, dispatches that follow each other into one compute pass, and submitted together
 * when a result is read, a buffer is written or the uniform slots are used up. Scalars of all dispatches of a submit go to
 * the GPU in one write; each dispatch finds its own by a dynamic offset. Bind groups are kept for as long as their buffers
 * live, and freed buffers are kept for reuse under their id, so that a steady decode step makes no GPU objects.
 *
 * A recording is the dispatches of one pass. Replaying it writes nothing: the uniforms of the last recording that was
 * replayed stay on the GPU, beside those of the submit.
 */

import { WebcompileError } from "./errors.js";
import { Profiler } from "./profiler.js";
import { type Dispatch, Recording } from "./recording.js";
import { ProfileRecorder } from "./profile.js";
import type { AdapterInfo, Profile } from "./types.js";

/** TVM's description of a kernel. */
export interface KernelInfo {
  /** "handle" for buffers; others are 32-bit scalars. */
  readonly arg_types: readonly string[];
  /** One of them is `paramWriteAccess:[1,0,...]`: which buffers the kernel writes. */
  readonly launch_param_tags: readonly string[];
}

/** Counted since the device was opened. */
export interface GpuCounters {
  dispatches: number;
  replays: number;
  submits: number;
  bytesWritten: number;
  bytesRead: number;
  pipelines: number;
  bindGroups: number;
  buffers: number;
  bufferBytes: number;
  /** Buffers, bind groups, pipelines, query sets, layouts and shader modules. */
  objectsCreated: number;
}

/** What to tell the owner of the device. */
export interface GpuEvents {
  /** A kernel was compiled, of those asked for so far. */
  onKernel?(ready: number, total: number): void;
  onLost?(error: WebcompileError): void;
  onWarning?(warning: WebcompileError): void;
}

/** How to open a device. */
export interface GpuOptions {
  readonly profile?: boolean;
}

interface Buffer {
  readonly gpu: GPUBuffer;
  /** Size of the GPU buffer. */
  readonly capacity: number;
  /** Bind groups of the kernels that were launched with it. */
  readonly groups: Set<Map<string, GPUBindGroup>>;
}

interface Kernel {
  readonly name: string;
  readonly code: string;
  readonly numBuffers: number;
  readonly numScalars: number;
  readonly layout: GPUBindGroupLayout;
  readonly pipelineLayout: GPUPipelineLayout;
  readonly groups: Map<string, GPUBindGroup>;
  /** Words of uniform data that a dispatch takes, a multiple of a slot. */
  readonly uniformWords: number;
  /** Settled when `pipeline` is there or cannot be; undefined before compiling starts. */
  compiled: Promise<void> | undefined;
  pipeline: GPUComputePipeline | undefined;
}

// WebGPU's flag constants; Node has no globals for them.
const BUFFER_USAGE = { MAP_READ: 1, COPY_SRC: 4, COPY_DST: 8, UNIFORM: 64, STORAGE: 128 } as const;
const SHADER_STAGE_COMPUTE = 4;
const MAP_MODE_READ = 1;

const WANTED_FEATURES = ["shader-f16", "subgroups"] as const satisfies readonly GPUFeatureName[];
const PROFILE_FEATURE: GPUFeatureName = "timestamp-query";
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const satisfies readonly (keyof GPUSupportedLimits)[];

/**
 * Kernels exchange values within teams of threads whose loops have the same bounds, while those of the other teams of their
 * subgroup may differ: more than WGSL's analysis can prove.
 */
const SUBGROUPS_MAY_DIVERGE = "diagnostic(off, subgroup_uniformity);\n";
/** Dispatches per submit at most, and per recording. */
const UNIFORM_SLOTS = 1024;
const SLOT_BYTES = 256;
const MAX_GRID = 65535;
/** Freed buffers are kept for reuse up to this size in all. */
const POOL_BYTES = 64 * 2 ** 20;
/** Reads that may be under way at once without making a buffer each time. */
const STAGING_BUFFERS = 4;
const LOSS_NOTICE_MS = 100;
/** Some broken graphics drivers never answer. */
const ADAPTER_MS = 20_000;

/** A WebGPU device with the operations that the runtime imports. Buffers and kernels are known by number. */
export class Gpu {
  readonly adapter: AdapterInfo;
  readonly counters: GpuCounters = {
    dispatches: 0,
    replays: 0,
    submits: 0,
    bytesWritten: 0,
    bytesRead: 0,
    pipelines: 0,
    bindGroups: 0,
    buffers: 0,
    bufferBytes: 0,
    objectsCreated: 0,
  };

  readonly #device: GPUDevice;
  readonly #events: GpuEvents;
  readonly #buffers = new Map<number, Buffer>();
  readonly #pool = new Map<number, number[]>();
  #pooledBytes = 0;
  #nextBuffer = 1;
  readonly #kernels: Kernel[] = [];
  readonly #layouts = new Map<string, { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout }>();
  #kernelsWanted = 0;
  #kernelsReady = 0;
  /** While launches are only rehearsed. */
  #launchedInRehearsal: Set<Kernel> | undefined;
  readonly #memoryChecks = new Set<Promise<void>>();

  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #boundPipeline: GPUComputePipeline | undefined;
  readonly #uniforms: GPUBuffer;
  readonly #uniformWords = new Int32Array((UNIFORM_SLOTS * SLOT_BYTES) / 4);
  readonly #dynamicOffset = new Uint32Array(1);
  #uniformEnd = 0;
  /** What is being recorded, until something else than a dispatch comes. */
  #recording: Recording | undefined;
  /** Whose uniforms are in the second half of the buffer. */
  #resident: Recording | undefined;
  /** Not in use, smallest first. */
  readonly #staging: GPUBuffer[] = [];
  readonly #profiler: Profiler | undefined;

  #failure: WebcompileError | undefined;
  #lost: WebcompileError | undefined;

  private constructor(device: GPUDevice, adapter: AdapterInfo, events: GpuEvents, isProfiling: boolean) {
    this.#device = device;
    this.adapter = adapter;
    this.#events = events;
    this.#profiler = isProfiling ? new Profiler(device, this.counters) : undefined;
    this.counters.objectsCreated++;
    this.#uniforms = device.createBuffer({
      label: "uniforms",
      size: 2 * this.#uniformWords.byteLength,
      usage: BUFFER_USAGE.UNIFORM | BUFFER_USAGE.COPY_DST,
    });
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault(); // It is thrown by the next check; the console need not have it too.
      this.#failure ??= errorOf(event.error);
    });
    void device.lost.then(({ reason, message }) => {
      if (this.#lost !== undefined) return;
      const detail = [reason, message].filter((part) => part !== "").join(": ");
      this.#lost = new WebcompileError("device_lost", `the WebGPU device was lost (${detail})`, "Create the engine again.");
      this.#events.onLost?.(this.#lost);
    });
  }

  /** Opens the most capable adapter with all it offers that kernels may use. With `profile`, dispatches are timed if it can. */
  static async open(gpu: GPU | undefined, events: GpuEvents = {}, { profile = false }: GpuOptions = {}): Promise<Gpu> {
    if (gpu === undefined) throw noWebGpu("this environment has no WebGPU (navigator.gpu is missing)");
    const adapter = await within(ADAPTER_MS, gpu.requestAdapter({ powerPreference: "high-performance" }));
    if (adapter === undefined) throw noWebGpu(`WebGPU gave no adapter within ${ADAPTER_MS / 1000} s`);
    if (adapter === null) throw noWebGpu("WebGPU has no adapter for this device");
    const isProfiling = profile && adapter.features.has(PROFILE_FEATURE);
    if (profile && !isProfiling) events.onWarning?.(noTimestamps());
    const wanted = isProfiling ? [...WANTED_FEATURES, PROFILE_FEATURE] : WANTED_FEATURES;
    const requiredFeatures = wanted.filter((name) => adapter.features.has(name));
    const requiredLimits = Object.fromEntries(WANTED_LIMITS.map((name) => [name, adapter.limits[name]]));
    let device: GPUDevice;
    try {
      device = await adapter.requestDevice({ label: "webcompile", requiredFeatures, requiredLimits });
    } catch (error) {
      throw noWebGpu(`the WebGPU adapter gave no device: ${error instanceof Error ? error.message : String(error)}`);
    }
    return new Gpu(device, describe(adapter, device), events, isProfiling);
  }

  /** Id of a storage buffer of at least so many bytes; 0 when there cannot be one. */
  alloc(nbytes: number): number {
    const capacity = Math.max(16, Math.ceil(nbytes / 16) * 16);
    const pooled = this.#pool.get(capacity)?.pop();
    if (pooled !== undefined) {
      this.#pooledBytes -= capacity;
      return pooled;
    }
    const { maxBufferSize, maxStorageBufferBindingSize } = this.adapter.limits;
    const limit = Math.min(maxBufferSize, maxStorageBufferBindingSize);
    if (capacity > limit) {
      this.#failure ??= new WebcompileError(
        "out_of_memory",
        `a buffer of ${capacity} bytes is needed; this device allows ${limit}`,
        "Use a smaller model or a smaller context window.",
      );
      return 0;
    }
    const usage = BUFFER_USAGE.STORAGE | BUFFER_USAGE.COPY_SRC | BUFFER_USAGE.COPY_DST;
    const buffer = this.#createBuffer({ size: capacity, usage });
    const id = this.#nextBuffer++;
    this.#buffers.set(id, { gpu: buffer, capacity, groups: new Set() });
    return id;
  }

  /** Gives a buffer back. Commands that were enqueued before still see it as it was. */
  free(id: number): void {
    const { capacity } = this.#buffer(id);
    if (this.#pooledBytes + capacity > POOL_BYTES) {
      this.#destroyBuffer(id);
      return;
    }
    this.#pooledBytes += capacity;
    const pool = this.#pool.get(capacity);
    if (pool === undefined) this.#pool.set(capacity, [id]);
    else pool.push(id);
  }

  /** Enqueues a copy of bytes; they may be reused on return. A size that is no multiple of 4 is padded with zeros. */
  write(id: number, offset: number, bytes: Uint8Array): void {
    const buffer = this.#buffer(id);
    this.flush();
    this.counters.bytesWritten += bytes.byteLength;
    const rest = bytes.byteLength % 4;
    const whole = bytes.byteLength - rest;
    if (whole > 0) this.#device.queue.writeBuffer(buffer.gpu, offset, bytes as Uint8Array<ArrayBuffer>, 0, whole);
    if (rest === 0) return;
    const tail = new Uint8Array(4);
    tail.set(bytes.subarray(whole));
    this.#device.queue.writeBuffer(buffer.gpu, offset + whole, tail);
  }

  /** Enqueues a copy between buffers. */
  copy(source: number, sourceOffset: number, target: number, targetOffset: number, nbytes: number): void {
    const from = this.#buffer(source).gpu;
    const to = this.#buffer(target).gpu;
    this.#endPass();
    this.#commands().copyBufferToBuffer(from, sourceOffset, to, targetOffset, Math.ceil(nbytes / 4) * 4);
  }

  /** Declares a kernel, to be compiled by `prepare` or `ready`; its number. */
  kernel(name: string, wgsl: string, info: KernelInfo): number {
    const numBuffers = info.arg_types.filter((type) => type === "handle").length;
    const numScalars = info.arg_types.length - numBuffers;
    const { group, pipeline } = this.#layout(writeAccess(name, info, numBuffers));
    const uniformWords = (Math.ceil((4 * (numScalars + 1)) / SLOT_BYTES) * SLOT_BYTES) / 4;
    const kernel: Kernel = {
      name,
      code: SUBGROUPS_MAY_DIVERGE + wgsl,
      numBuffers,
      numScalars,
      layout: group,
      pipelineLayout: pipeline,
      groups: new Map(),
      uniformWords,
      compiled: undefined,
      pipeline: undefined,
    };
    return this.#kernels.push(kernel) - 1;
  }

  #compile(kernel: Kernel): Promise<void> {
    const { name, code, pipelineLayout: layout } = kernel;
    this.#kernelsWanted++;
    this.counters.objectsCreated += 2; // Module and pipeline.
    const module = this.#device.createShaderModule({ label: name, code });
    const descriptor = { label: name, layout, compute: { module, entryPoint: name } };
    const compiled = this.#device.createComputePipelineAsync(descriptor).then(
      (made) => {
        kernel.pipeline = made;
        this.counters.pipelines++;
        this.#events.onKernel?.(++this.#kernelsReady, this.#kernelsWanted);
      },
      (error: unknown) => {
        throw this.#lost ?? new WebcompileError(
          "webgpu_unavailable",
          `this device cannot compile kernel ${name}: ${error instanceof Error ? error.message : String(error)}`,
          "Update the browser or the graphics driver.",
        );
      },
    );
    compiled.catch(() => undefined); // Reported by those who wait for it.
    return compiled;
  }

  /** Compiles the kernels that `rehearse` launches; these launches do nothing else. */
  async prepare(rehearse: () => void): Promise<void> {
    const launched = new Set<Kernel>();
    this.#launchedInRehearsal = launched;
    try {
      rehearse();
    } finally {
      this.#launchedInRehearsal = undefined;
    }
    await this.#compileAll(launched);
  }

  /** Compiles all kernels that are not compiled yet. */
  async ready(): Promise<void> {
    await this.#compileAll(this.#kernels);
  }

  async #compileAll(kernels: Iterable<Kernel>): Promise<void> {
    await Promise.all(Array.from(kernels, (kernel) => (kernel.compiled ??= this.#compile(kernel))));
  }

  /**
   * Enqueues a dispatch. `words` holds the buffer ids from index `buffersAt` and the scalars from index `scalarsAt`. The
   * kernel's uniform is its scalars and then the last block index of grid x, which may be spread over x and z.
   */
  launch(id: number, words: Int32Array, buffersAt: number, scalarsAt: number, x: number, y: number, z: number): void {
    const kernel = this.#kernels[id];
    if (kernel !== undefined && this.#launchedInRehearsal !== undefined) {
      this.#launchedInRehearsal.add(kernel);
      return;
    }
    if (kernel?.pipeline === undefined) throw internal(`kernel ${id} (${kernel?.name ?? "unknown"}) is not compiled`);
    if (x === 0 || y === 0 || z === 0) return;
    if (x > MAX_GRID && z !== 1) throw internal(`${kernel.name}: grid ${x} x ${y} x ${z} is too large`);
    if (this.#uniformEnd + kernel.uniformWords > this.#uniformWords.length) this.flush();

    const at = this.#uniformEnd;
    for (let i = 0; i < kernel.numScalars; i++) this.#uniformWords[at + i] = words[scalarsAt + i] ?? 0;
    this.#uniformWords[at + kernel.numScalars] = x - 1;
    this.#uniformEnd += kernel.uniformWords;

    const buffers = words.subarray(buffersAt, buffersAt + kernel.numBuffers);
    const grid = x > MAX_GRID ? { x: MAX_GRID, y, z: Math.ceil(x / MAX_GRID) } : { x, y, z };
    const dispatch = { pipeline: kernel.pipeline, group: this.#bindGroup(kernel, buffers), uniformAt: at, ...grid };
    this.#recording?.add(dispatch, this.#uniformWords.subarray(at, this.#uniformEnd), buffers);
    this.#dispatch(dispatch);
  }

  /** Notes what `run` enqueues. There is no recording if that is more than the dispatches of one pass. */
  record<T>(run: () => T): { readonly result: T; readonly recording: Recording | undefined } {
    this.flush();
    this.#recording = new Recording();
    try {
      const result = run();
      return { result, recording: this.#recording };
    } finally {
      this.#recording = undefined;
    }
  }

  /**
   * Enqueues what was recorded; false if a buffer of it is no more. The buffers need not be in use between replays, but one
   * that was freed has to be nobody's when a replay overwrites it.
   */
  replay(recording: Recording): boolean {
    for (const id of recording.buffers) if (!this.#buffers.has(id)) return false;
    this.#endPass();
    if (this.#resident !== recording) {
      this.flush(); // It may use what was resident.
      const uniforms = Int32Array.from(recording.uniforms);
      this.#device.queue.writeBuffer(this.#uniforms, this.#uniformWords.byteLength, uniforms);
      this.counters.bytesWritten += uniforms.byteLength;
      this.#resident = recording;
    }
    for (const dispatch of recording.dispatches) this.#dispatch(dispatch, this.#uniformWords.length);
    this.counters.replays++;
    return true;
  }

  /** Submits what is enqueued. */
  flush(): void {
    this.#endPass();
    if (this.#encoder === undefined) return;
    const queue = this.#device.queue;
    if (this.#uniformEnd > 0) {
      queue.writeBuffer(this.#uniforms, 0, this.#uniformWords, 0, this.#uniformEnd);
      this.counters.bytesWritten += this.#uniformEnd * 4;
      this.#uniformEnd = 0;
    }
    this.#profiler?.resolve(this.#encoder);
    queue.submit([this.#encoder.finish()]);
    this.#profiler?.submitted();
    this.#encoder = undefined;
    this.counters.submits++;
  }

  /**
   * Reads bytes of a buffer after all that is enqueued. Offset and size are multiples of 4. Several reads may be under way;
   * they end in the order of the calls.
   */
  async read(id: number, offset: number, target: Uint8Array): Promise<void> {
    const source = this.#buffer(id).gpu;
    const staging = this.#takeStaging(target.byteLength);
    try {
      this.counters.bytesRead += target.byteLength;
    this.#endPass();
      this.#commands().copyBufferToBuffer(source, offset, staging, 0, target.byteLength);
      this.flush();
      await staging.mapAsync(MAP_MODE_READ, 0, target.byteLength);
    } catch (error) {
      this.#destroyStaging(staging);
      // The news of a lost device may come a moment after what it made fail.
      await within(LOSS_NOTICE_MS, this.#device.lost);
      this.check();
      throw error;
    }
    target.set(new Uint8Array(staging.getMappedRange(0, target.byteLength)));
    staging.unmap();
    this.#keepStaging(staging);
    this.check();
  }

  /** Device time by kernel since the last profile; an empty one if this device does not time dispatches. */
  async profile(): Promise<Profile> {
    if (this.#profiler === undefined) return new ProfileRecorder().profile();
    this.flush();
    const profile = await this.#profiler.take();
    this.check();
    return profile;
  }

  /** Resolves when all that is enqueued is done and no allocation has failed. */
  async idle(): Promise<void> {
    this.flush();
    await Promise.all(this.#memoryChecks);
    this.check();
    await this.#device.queue.onSubmittedWorkDone();
    this.check();
  }

  /** Throws what has gone wrong on the device since the last check. */
  check(): void {
    const failure = this.#lost ?? this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure;
  }

  /** Remembers an error that cannot be thrown through wasm; the next check throws it. */
  fail(error: unknown): void {
    this.#failure ??= WebcompileError.from(error);
  }

  /** Frees the device and all that is on it. */
  destroy(): void {
    this.#lost ??= new WebcompileError("engine_closed", "the engine was unloaded");
    this.#device.destroy();
  }

  #buffer(id: number): Buffer {
    const buffer = this.#buffers.get(id);
    if (buffer === undefined) throw internal(`there is no buffer ${id}`);
    return buffer;
  }

  #commands(): GPUCommandEncoder {
    return (this.#encoder ??= this.#device.createCommandEncoder());
  }

  #dispatch(dispatch: Dispatch, uniformsStart = 0): void {
    const { pipeline, group, uniformAt, x, y, z } = dispatch;
    const pass = (this.#pass ??= this.#commands().beginComputePass(this.#profiler?.time(dispatch)));
    if (this.#boundPipeline !== pipeline) pass.setPipeline((this.#boundPipeline = pipeline));
    this.#dynamicOffset[0] = 4 * (uniformsStart + uniformAt);
    pass.setBindGroup(0, group, this.#dynamicOffset, 0, 1);
    pass.dispatchWorkgroups(x, y, z);
    this.counters.dispatches++;
    if (this.#profiler !== undefined) this.#closePass();
  }

  #endPass(): void {
    this.#recording = undefined;
    this.#closePass();
  }

  #closePass(): void {
    this.#pass?.end();
    this.#pass = undefined;
    this.#boundPipeline = undefined;
  }

  #createBuffer(descriptor: GPUBufferDescriptor): GPUBuffer {
    this.#device.pushErrorScope("out-of-memory");
    const buffer = this.#device.createBuffer(descriptor);
    const check = this.#device.popErrorScope().then(
      (error) => {
        if (error !== null) this.#failure ??= errorOf(error);
        this.#memoryChecks.delete(check);
      },
      () => this.#memoryChecks.delete(check), // The device is lost, which is reported elsewhere.
    ) as Promise<void>;
    this.#memoryChecks.add(check);
    this.counters.buffers++;
    this.counters.objectsCreated++;
    this.counters.bufferBytes += descriptor.size;
    return buffer;
  }

  #destroyBuffer(id: number): void {
    const buffer = this.#buffer(id);
    this.flush();
    for (const groups of buffer.groups) groups.clear();
    buffer.gpu.destroy();
    this.#buffers.delete(id);
    this.counters.bufferBytes -= buffer.capacity;
  }

  /** A mappable buffer of at least so many bytes. */
  #takeStaging(nbytes: number): GPUBuffer {
    const index = this.#staging.findIndex((buffer) => buffer.size >= nbytes);
    const [found] = index < 0 ? [] : this.#staging.splice(index, 1);
    return found ?? this.#createBuffer({ size: nbytes, usage: BUFFER_USAGE.MAP_READ | BUFFER_USAGE.COPY_DST });
  }

  /** Keeps the largest: they serve every read. */
  #keepStaging(staging: GPUBuffer): void {
    this.#staging.push(staging);
    this.#staging.sort((one, other) => one.size - other.size);
    const smallest = this.#staging.length > STAGING_BUFFERS ? this.#staging.shift() : undefined;
    if (smallest !== undefined) this.#destroyStaging(smallest);
  }

  #destroyStaging(staging: GPUBuffer): void {
    staging.destroy();
    this.counters.bufferBytes -= staging.size;
  }

  #layout(writes: readonly boolean[]): { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout } {
    const key = writes.map(Number).join("");
    const known = this.#layouts.get(key);
    if (known !== undefined) return known;
    const entries: GPUBindGroupLayoutEntry[] = writes.map((write, binding) => ({
      binding,
      visibility: SHADER_STAGE_COMPUTE,
      buffer: { type: write ? "storage" : "read-only-storage" },
    }));
    entries.push({
      binding: writes.length,
      visibility: SHADER_STAGE_COMPUTE,
      buffer: { type: "uniform", hasDynamicOffset: true },
    });
    this.counters.objectsCreated += 2;
    const group = this.#device.createBindGroupLayout({ entries });
    const layout = { group, pipeline: this.#device.createPipelineLayout({ bindGroupLayouts: [group] }) };
    this.#layouts.set(key, layout);
    return layout;
  }

  #bindGroup(kernel: Kernel, ids: Int32Array): GPUBindGroup {
    const key = ids.join();
    const known = kernel.groups.get(key);
    if (known !== undefined) return known;
    const buffers = Array.from(ids, (id) => this.#buffer(id));
    const entries: GPUBindGroupEntry[] = buffers.map(({ gpu }, binding) => ({ binding, resource: { buffer: gpu } }));
    const size = kernel.uniformWords * 4;
    entries.push({ binding: entries.length, resource: { buffer: this.#uniforms, offset: 0, size } });
    const group = this.#device.createBindGroup({ label: kernel.name, layout: kernel.layout, entries });
    kernel.groups.set(key, group);
    for (const buffer of buffers) buffer.groups.add(kernel.groups);
    this.counters.bindGroups++;
    this.counters.objectsCreated++;
    return group;
  }
}

/** Which buffers a kernel writes. */
function writeAccess(name: string, info: KernelInfo, numBuffers: number): boolean[] {
  const prefix = "paramWriteAccess:";
  const tag = info.launch_param_tags.find((text) => text.startsWith(prefix));
  const flags: unknown = JSON.parse(tag?.slice(prefix.length) ?? "[]");
  if (!Array.isArray(flags) || flags.length !== numBuffers) {
    throw internal(`kernel ${name} has ${numBuffers} buffers and write access ${JSON.stringify(flags)}`);
  }
  return flags.map((flag) => flag === 1);
}

/** What the promise gives, or undefined if that takes too long. */
async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function describe(adapter: GPUAdapter, device: GPUDevice): AdapterInfo {
  const { vendor, architecture, device: model, description, isFallbackAdapter } = adapter.info;
  const limits = device.limits;
  return {
    vendor,
    architecture,
    device: model,
    description,
    isFallback: isFallbackAdapter,
    features: [...device.features],
    limits: {
      maxBufferSize: limits.maxBufferSize,
      maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
      maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
      maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
      maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
    },
  };
}

function errorOf(error: GPUError): WebcompileError {
  if (error.constructor.name === "GPUOutOfMemoryError") {
    return new WebcompileError(
      "out_of_memory",
      `the device has no memory left: ${error.message}`,
      "Close other pages, or use a smaller model or a smaller context window.",
    );
  }
  return internal(`WebGPU refused a command: ${error.message}`);
}

function noWebGpu(message: string): WebcompileError {
  const hint = !globalThis.isSecureContext
    ? "WebGPU needs a secure context: serve the page over https or from localhost."
    : "Use a browser with WebGPU (Chrome or Edge 113, Safari 26, Firefox 141 or later) and hardware acceleration turned on.";
  return new WebcompileError("webgpu_unavailable", message, hint);
}

function noTimestamps(): WebcompileError {
  return new WebcompileError(
    "webgpu_unavailable",
    `this device cannot time dispatches (it has no feature "${PROFILE_FEATURE}"): profiles will be empty`,
    "Use another browser or adapter to profile.",
  );
}

function internal(message: string): WebcompileError {
  return new WebcompileError("internal", message, "This is a bug in webcompile: please report it.");
}
