// Counts what any WebGPU program asks of its device, by wrapping the prototypes. Loaded first, in a page or a worker.
/* global BroadcastChannel, GPUBuffer, GPUCommandEncoder, GPUComputePassEncoder, GPUDevice, GPUQueue */
{
  const counts = {
    dispatches: 0,
    passes: 0,
    submits: 0,
    bytesWritten: 0,
    bytesRead: 0,
    buffers: 0,
    bindGroups: 0,
    pipelines: 0,
  };

  const before = (type, method, note) => {
    const original = type.prototype[method];
    type.prototype[method] = function (...args) {
      note.apply(this, args);
      return original.apply(this, args);
    };
  };
  const count = (type, method, name) => before(type, method, () => void counts[name]++);

  count(GPUComputePassEncoder, "dispatchWorkgroups", "dispatches");
  count(GPUComputePassEncoder, "dispatchWorkgroupsIndirect", "dispatches");
  count(GPUCommandEncoder, "beginComputePass", "passes");
  count(GPUQueue, "submit", "submits");
  count(GPUDevice, "createBindGroup", "bindGroups");
  count(GPUDevice, "createComputePipeline", "pipelines");
  count(GPUDevice, "createComputePipelineAsync", "pipelines");
  before(GPUDevice, "createBuffer", ({ size, mappedAtCreation }) => {
    counts.buffers++;
    if (mappedAtCreation) counts.bytesWritten += size;
  });
  before(GPUQueue, "writeBuffer", (_buffer, _offset, data, dataOffset = 0, size = undefined) => {
    const elements = data.length ?? data.byteLength;
    counts.bytesWritten += (size ?? elements - dataOffset) * (data.BYTES_PER_ELEMENT ?? 1);
  });
  before(GPUBuffer, "mapAsync", function (mode, offset = 0, size = undefined) {
    if (mode === 1) counts.bytesRead += size ?? this.size - offset;
  });

  // A page asks its worker over a channel; see `workerCounts` in ours.js.
  globalThis.webgpuCounts = () => ({ ...counts });
  new BroadcastChannel("webgpu-counts").onmessage = ({ data, target }) => {
    if (data === "ask") target.postMessage(globalThis.webgpuCounts());
  };
}
