/**
 * Builds the page into dist/: index.html, style.css, icon.svg, app.js, and beside them the runtime's worker.js and host.js.
 * With `--fake` into build/site-fake/ of the checkout, with testing/fake-engine.ts in the place of the runtime: for tests of
 * the page alone.
 */

import { cp, mkdir, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const fake = process.argv.includes("--fake");
const output = here(fake ? "../build/site-fake" : "dist");

await rm(output, { recursive: true, force: true });
await mkdir(output, { recursive: true });
await cp(here("public"), output, { recursive: true });
await build({
  entryPoints: [here("src/main.ts")],
  outfile: `${output}/app.js`,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: !fake,
  legalComments: "eof",
  logLevel: "warning",
  // The type checker reads the runtime's sources; the page is made of its package, whose worker loads the same host.js.
  tsconfigRaw: {},
  external: ["./host.js"],
  ...(fake ? { alias: { webcompile: here("testing/fake-engine.ts") } } : {}),
});
for (const name of ["worker.js", "host.js"]) {
  if (fake) await writeFile(`${output}/${name}`, "// The fake engine has no worker.\n");
  else await cp(here(`../runtime-web/dist/${name}`), `${output}/${name}`);
}
