/** A button that copies a text and shows that it did. */

import { element } from "../dom.js";
import { icon } from "../icons.js";
import { announce } from "./announcer.js";

/** `text` is asked for when the button is pressed: an answer may still have grown. */
export function copyButton(label: string, className: string, text: () => string): HTMLButtonElement {
  const button = element("button", { type: "button", class: className, "aria-label": label, title: label }, icon("copy"));
  button.addEventListener("click", () => {
    void navigator.clipboard.writeText(text()).then(
      () => {
        button.replaceChildren(icon("check"));
        announce("Copied");
        setTimeout(() => {
          button.replaceChildren(icon("copy"));
        }, 1500);
      },
      () => {
        announce("The browser did not allow copying");
      },
    );
  });
  return button;
}
