/** What an empty conversation shows: what this is, what it costs to start, and something to ask. */

import { element } from "../dom.js";
import { formatBytes } from "../format.js";
import { icon } from "../icons.js";
import type { ModelEntry } from "../models.js";
import type { SessionState } from "../session.js";

const EXAMPLES = [
  "Explain in two sentences how a rainbow forms.",
  "Write a Python function that reverses a linked list.",
  "Suggest three things to do on a rainy Sunday.",
] as const;

/** Fills the section. `ask` sends an example; `load` starts loading without a question. */
export function showWelcome(
  root: HTMLElement,
  model: ModelEntry | undefined,
  state: SessionState,
  actions: { ask: (text: string) => void; load: () => void },
): void {
  const shown = `${model?.id ?? ""} ${state.kind}`;
  if (root.dataset["shown"] === shown) return; // New elements would take the focus from the old ones.
  root.dataset["shown"] = shown;
  if (model === undefined) {
    root.replaceChildren();
    return;
  }
  const start =
    state.kind === "idle"
      ? element(
          "button",
          { type: "button", id: "load-model", class: "button primary large", onclick: actions.load },
          icon("down"),
          `Load model (${formatBytes(model.nbytes)})`,
        )
      : null;
  root.replaceChildren(
    element("p", { class: "welcome-mark" }, icon("send")),
    element("h2", {}, state.kind === "ready" ? "Ask away" : `Chat with ${model.name}`),
    element(
      "p",
      { class: "welcome-text" },
      "The model runs on this device, in this page. What you write stays here: the page can reach no other server.",
    ),
    ...(start === null ? [] : [start]),
    element(
      "ul",
      { class: "examples", "aria-label": "Examples" },
      ...EXAMPLES.map((text) =>
        element("li", {}, element("button", { type: "button", class: "example", onclick: () => { actions.ask(text); } }, text)),
      ),
    ),
  );
}
