/** From the types that shards store to the types that kernels read. */

import { WebcompileError } from "./errors.js";
import type { Dtype } from "./manifest.js";

/** Bytes of a tensor in the type that is wanted. Only widening changes anything: it loses nothing. */
export function widen(bytes: Uint8Array, stored: Dtype, wanted: string, name: string): Uint8Array {
  if (stored === wanted) return bytes;
  if (wanted === "float32" && stored === "bfloat16") return fromHalves(bytes, (half) => half << 16);
  if (wanted === "float32" && stored === "float16") {
    const table = (float16Bits ??= Uint32Array.from({ length: 65536 }, (_, half) => float16ToFloat32Bits(half)));
    return fromHalves(bytes, (half) => table[half] ?? 0);
  }
  throw new WebcompileError("tensor_mismatch", `${name} is stored as ${stored}; the compiled model reads ${wanted}`);
}

let float16Bits: Uint32Array | undefined;

function fromHalves(bytes: Uint8Array, toBits: (half: number) => number): Uint8Array {
  const isAligned = bytes.byteOffset % 2 === 0;
  const { buffer, byteOffset, byteLength } = isAligned ? bytes : bytes.slice();
  const halves = new Uint16Array(buffer, byteOffset, byteLength / 2);
  const words = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) words[i] = toBits(halves[i] ?? 0);
  return new Uint8Array(words.buffer);
}

/** The bits of the float32 that equals a float16. */
export function float16ToFloat32Bits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return (sign | 0x7f800000 | (fraction << 13)) >>> 0;
  if (exponent > 0) return (sign | ((exponent + 112) << 23) | (fraction << 13)) >>> 0;
  if (fraction === 0) return sign >>> 0;
  const shift = Math.clz32(fraction) - 21; // Brings the leading one to bit 10.
  return (sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13)) >>> 0;
}
