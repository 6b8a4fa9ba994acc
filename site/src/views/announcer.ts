/** Tells screen readers what happened. A streamed answer is told once, when it is finished, not word by word. */

import { byId } from "../dom.js";

/** Says the text when the reader is idle. */
export function announce(text: string): void {
  const region = byId("announcer", HTMLElement);
  region.textContent = "";
  // A reader tells changes only: the same text twice in a row would be silent without an empty moment between.
  setTimeout(() => {
    region.textContent = text;
  }, 50);
}
