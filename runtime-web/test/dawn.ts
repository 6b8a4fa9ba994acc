/** WebGPU in Node: Dawn, on whatever adapter there is. */

import { existsSync } from "node:fs";
import { create } from "webgpu";

/** Where Debian's chromium package puts SwiftShader, an adapter in software. Dawn reads the variable when it starts. */
const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";
if (existsSync(SWIFTSHADER)) process.env["VK_ICD_FILENAMES"] ??= SWIFTSHADER;

/** The implementation. It must be kept for as long as its devices. */
export const dawn: GPU = create([]);

/** Why GPU tests are skipped, or false when they are not. */
export const skipWithoutGpu: string | false =
  (await dawn.requestAdapter()) === null
    ? "no WebGPU adapter: set VK_ICD_FILENAMES to a Vulkan driver, such as the SwiftShader of Debian's chromium"
    : false;
