/** Lint for all TypeScript and JavaScript of the repository. Warnings are errors (see the script in package.json). */

import js from "@eslint/js";
import { defineConfig } from "eslint/config";
import tseslint from "typescript-eslint";

/** What scripts find in Node or a page. TypeScript knows by itself. */
const GLOBALS = [
  ...["Buffer", "TextDecoder", "TextEncoder", "URL", "WebAssembly", "console", "fetch", "performance", "process"],
  ...["setTimeout", "clearTimeout", "btoa", "atob", "document", "location", "navigator", "window"],
];

export default defineConfig(
  { ignores: ["**/dist/", "**/build/", "**/generated/", "**/node_modules/", ".venv/", "**/test-results/", "**/playwright-report/"] },
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  js.configs.recommended,
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      // Numbers read well in messages.
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      // An underscore says that a loop is only counted.
      "@typescript-eslint/no-unused-vars": ["error", { varsIgnorePattern: "^_", argsIgnorePattern: "^_" }],
    },
  },
  {
    // node:test's functions return promises that nobody awaits.
    files: ["**/test/**/*.ts"],
    rules: { "@typescript-eslint/no-floating-promises": "off" },
  },
  {
    files: ["**/*.js", "**/*.mjs"],
    languageOptions: { globals: Object.fromEntries(GLOBALS.map((name) => [name, "readonly"])) },
    // A script may say itself which globals it takes.
    rules: { "no-redeclare": ["error", { builtinGlobals: false }] },
  },
);
