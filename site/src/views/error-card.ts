/** An error with what to do about it. */

import { ERROR_CODES, type ErrorCode } from "webcompile";

import { element } from "../dom.js";
import type { PageError } from "../page-error.js";

export interface ErrorAction {
  readonly label: string;
  readonly run: () => void;
}

/** What a user can do who only sees the page; the runtime's own hint comes before it. */
const ADVICE: Partial<Record<ErrorCode, string>> = {
  artifact_corrupt: "The file on the server or on the way is damaged. Try again; if it stays, tell whoever runs this site.",
  artifact_invalid: "The model on this server is not complete. Tell whoever runs this site.",
  abi_mismatch: "The page and the model come from different releases. Reload the page; if it stays, tell whoever runs this site.",
  download_failed: "Check the network connection and try again: what was loaded so far is kept.",
  storage_full: "Make room: delete downloaded models under Model, or free disk space.",
  out_of_memory: "Close other tabs and programs that use the graphics processor, or choose a smaller model.",
  device_lost: "The graphics processor was reset or taken away. Try again: the model is loaded from this device's storage.",
  context_overflow: "Start a new chat, or shorten the message.",
  internal: "This is a bug. Reload the page to go on.",
};

/** The card: title, message, hint and buttons. The message names the code, for bug reports and searches. */
export function errorCard(error: PageError, actions: readonly ErrorAction[]): HTMLElement {
  const known = Object.hasOwn(ERROR_CODES, error.code) ? (error.code as ErrorCode) : "internal";
  const hint = error.hint === "" ? (ADVICE[known] ?? "") : error.hint;
  const summary = ERROR_CODES[known];
  return element(
    "div",
    { class: "error", role: "alert" },
    element("p", { class: "error-title" }, `${summary.charAt(0).toUpperCase()}${summary.slice(1)}`),
    element("p", { class: "error-message" }, error.message, " ", element("code", {}, error.code)),
    hint === "" ? null : element("p", { class: "error-hint" }, hint),
    element(
      "div",
      { class: "row" },
      ...actions.map(({ label, run }) => element("button", { type: "button", class: "button", onclick: run }, label)),
    ),
  );
}
