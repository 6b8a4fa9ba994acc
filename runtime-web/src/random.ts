/** Counter-based random numbers: Philox4x32-10 of Random123 (Salmon et al., 2011). */

/** Four unsigned 32-bit words. */
export type Words4 = readonly [number, number, number, number];

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/** The block of random words that belongs to a counter under a key. */
export function philox4x32(counter: Words4, key: readonly [number, number]): Words4 {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low0 = Math.imul(MULTIPLIER_0, c0);
    const low1 = Math.imul(MULTIPLIER_1, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1 >>> 0, (high0 ^ c3 ^ k1) >>> 0, low0 >>> 0];
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** A number strictly between 0 and 1 that depends on nothing but the seed (a 64-bit integer at most), the step and the round. */
export function uniform(seed: number, step: number, round = 0): number {
  const [word] = philox4x32([step >>> 0, round, 0, 0], [seed % 2 ** 32 >>> 0, Math.floor(seed / 2 ** 32) >>> 0]);
  return (word + 0.5) / 2 ** 32;
}

/** A seed for a request that names none. */
export function randomSeed(): number {
  const [low = 0, high = 0] = crypto.getRandomValues(new Uint32Array(2));
  return (high & 0x1fffff) * 2 ** 32 + low;
}

/** The upper half of the 64-bit product of two unsigned 32-bit words. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle0 = aHigh * bLow + ((aLow * bLow) >>> 16);
  const middle1 = aLow * bHigh + (middle0 & 0xffff);
  return aHigh * bHigh + (middle0 >>> 16) + (middle1 >>> 16);
}
