/** The message box with its button, which sends or stops. */

import { byId } from "../dom.js";
import { icon } from "../icons.js";

export class Composer {
  readonly #form = byId("composer", HTMLFormElement);
  readonly #prompt = byId("prompt", HTMLTextAreaElement);
  readonly #button = byId("send", HTMLButtonElement);
  #busy = false;
  #usable = true;

  constructor(actions: { send: (text: string) => void; stop: () => void }) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = this.#prompt.value.trim();
      if (this.#busy || text === "" || !this.#usable) return;
      this.setText("");
      actions.send(text);
      this.#prompt.focus();
    });
    this.#prompt.addEventListener("keydown", (event) => {
      // Enter also ends a composition of an input method (Chinese, Japanese …): that one does not send.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#form.requestSubmit();
    });
    this.#prompt.addEventListener("input", () => {
      this.#fit();
    });
    this.#button.addEventListener("click", (event) => {
      if (!this.#busy) return;
      event.preventDefault();
      actions.stop();
      this.#prompt.focus();
    });
  }

  /** Puts a text into the box. */
  setText(text: string): void {
    this.#prompt.value = text;
    this.#fit();
  }

  focus(): void {
    this.#prompt.focus();
  }

  /** `busy`: an answer is under way, so the button stops it. `usable`: whether anything can be sent at all. */
  update(busy: boolean, usable: boolean): void {
    this.#usable = usable;
    this.#prompt.disabled = !usable;
    if (busy !== this.#busy || this.#button.childElementCount === 0) {
      this.#busy = busy;
      const label = busy ? "Stop" : "Send";
      this.#button.setAttribute("aria-label", label);
      this.#button.title = busy ? "Stop (Esc)" : "Send (Enter)";
      this.#button.classList.toggle("stop", busy);
      this.#button.replaceChildren(icon(busy ? "stop" : "send"));
    }
    this.#enable();
  }

  #enable(): void {
    this.#button.disabled = !this.#busy && (!this.#usable || this.#prompt.value.trim() === "");
  }

  #fit(): void {
    this.#prompt.style.height = "auto";
    this.#prompt.style.height = `${String(Math.min(this.#prompt.scrollHeight, 240))}px`;
    this.#enable();
  }
}
