/** Kernels for tests of the GPU layer. */

import type { Gpu, KernelInfo } from "../src/gpu.js";

/** As TVM writes kernels: buffers, then a uniform with the scalars and packGridDimX; large grids go over x and z. */
function kernelSource(name: string, access: readonly ("read" | "read_write")[], scalars: string, body: string): string {
  const buffers = access.map((mode, i) => `@group(0) @binding(${i}) var<storage, ${mode}> b${i}: array<i32>;`).join("\n");
  return `${buffers}
struct PODArgs { ${scalars} packGridDimX: u32 }
@group(0) @binding(${access.length}) var<uniform> podArgs: PODArgs;
@compute @workgroup_size(1, 1, 1)
fn ${name}(@builtin(workgroup_id) blockIdx: vec3<u32>, @builtin(num_workgroups) gridDim: vec3<u32>) {
  if (blockIdx.z * gridDim.x + blockIdx.x > podArgs.packGridDimX) { return; }
  let i: u32 = blockIdx.z * gridDim.x + blockIdx.x;
  ${body}
}`;
}

/** What TVM says of a kernel with these arguments. */
export function kernelInfo(argTypes: string[], writes: number[]): KernelInfo {
  return { arg_types: argTypes, launch_param_tags: [`paramWriteAccess:[${writes.join(",")}]`, "blockIdx.x"] };
}

/** Numbers of the kernels: `scale` and `fill` set a buffer, `count` increases it. */
export function declareKernels(gpu: Gpu): { scale: number; fill: number; count: number } {
  // b0[i] = b1[i] * factor + offset
  const scalePods = "factor: i32, offset: i32,";
  const scaleBody = "b0[i] = b1[i] * podArgs.factor + podArgs.offset;";
  const scale = gpu.kernel(
    "scale",
    kernelSource("scale", ["read_write", "read"], scalePods, scaleBody),
    kernelInfo(["handle", "handle", "int32", "int32"], [1, 0]),
  );
  const fill = gpu.kernel(
    "fill",
    kernelSource("fill", ["read_write"], "value: f32,", "b0[i] = bitcast<i32>(podArgs.value);"),
    kernelInfo(["handle", "float32"], [1]),
  );
  const countBody = "b0[i + blockIdx.y * (podArgs.packGridDimX + 1u)] += 1;";
  const count = gpu.kernel("count", kernelSource("count", ["read_write"], "", countBody), kernelInfo(["handle"], [1]));
  return { scale, fill, count };
}
