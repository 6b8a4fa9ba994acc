/** What the page says about the device before anything is loaded. */

import { element } from "../dom.js";
import { advice, type Support } from "../support.js";

/** The card for a browser that cannot run a model, with a button to look again. */
export function unsupportedCard(support: Extract<Support, { ok: false }>, retry: () => void): HTMLElement {
  const { title, text, steps } = advice(support.problem, navigator.userAgent);
  return element(
    "section",
    { class: "card unsupported", role: "alert" },
    element("h2", {}, title),
    element("p", {}, text),
    element("ul", {}, ...steps.map((step) => element("li", {}, step))),
    element("button", { type: "button", class: "button", onclick: retry }, "Look again"),
  );
}

/** The honest word about a software adapter. */
export function softwareNote(adapter: string): HTMLElement {
  return element(
    "details",
    { class: "card note-card" },
    element("summary", {}, element("strong", {}, "Answers will be slow"), " on this device."),
    element(
      "p",
      {},
      `The browser gives this page a software adapter (${adapter}), which computes on the CPU instead of a graphics processor. ` +
        "See whether graphics acceleration is switched on in the browser's settings.",
    ),
  );
}
