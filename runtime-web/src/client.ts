/** The side of the engine that lives in the page: it only speaks the protocol. */

import { WebcompileError } from "./errors.js";
import type { Engine, EngineOptions } from "./types.js";

/** Loads a compiled model and resolves when it is ready to run. */
export async function createEngine(options: EngineOptions): Promise<Engine> {
  await Promise.resolve(options);
  throw new WebcompileError("internal", "not there yet");
}
