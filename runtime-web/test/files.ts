/** fetch for file URLs, which Node lacks. */

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

export const fetchFile: typeof fetch = async (input) => {
  const url = new URL(input instanceof Request ? input.url : input);
  try {
    return new Response(await readFile(fileURLToPath(url)));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return new Response(null, { status: 404 });
    throw error;
  }
};
