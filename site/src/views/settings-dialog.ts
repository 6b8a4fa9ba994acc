/** The settings, changed at once: there is no "save" to forget. */

import { byId, element } from "../dom.js";
import { icon } from "../icons.js";
import { DEFAULT_SETTINGS, type Settings } from "../settings.js";

interface NumberField {
  readonly key: "temperature" | "topP" | "maxTokens" | "seed";
  readonly label: string;
  readonly hint: string;
  readonly min: number;
  readonly max: number | null;
  readonly step: number | "any";
  readonly placeholder: string;
}

const FIELDS: readonly NumberField[] = [
  { key: "temperature", label: "Temperature", hint: "0 always takes the most likely word; more varies more.", min: 0, max: 2, step: 0.05, placeholder: "1" },
  { key: "topP", label: "Top p", hint: "Leaves out unlikely words: 0.9 keeps the likeliest 90 %.", min: 0.01, max: 1, step: 0.01, placeholder: "1" },
  { key: "maxTokens", label: "Max tokens", hint: "Length limit of an answer.", min: 1, max: null, step: 1, placeholder: "what fits" },
  { key: "seed", label: "Seed", hint: "The same seed gives the same answer.", min: 0, max: null, step: 1, placeholder: "random" },
];

export class SettingsDialog {
  readonly #dialog = byId("settings", HTMLDialogElement);
  readonly #onChange: (settings: Settings) => void;

  constructor(onChange: (settings: Settings) => void) {
    this.#onChange = onChange;
  }

  /** Opens the dialog with these settings. */
  show(settings: Settings): void {
    let current = settings;
    const change = (changed: Partial<Settings>): void => {
      current = { ...current, ...changed };
      this.#onChange(current);
    };
    const system = element("textarea", {
      id: "setting-system",
      rows: 4,
      placeholder: "For example: You are a patient teacher. Answer briefly.",
    });
    system.value = settings.systemPrompt;
    system.addEventListener("input", () => {
      change({ systemPrompt: system.value });
    });
    const close = (): void => {
      this.#dialog.close();
    };
    const reset = (): void => {
      this.#onChange(DEFAULT_SETTINGS);
      close();
      this.show(DEFAULT_SETTINGS);
    };
    this.#dialog.replaceChildren(
      dialogHead("settings-title", "Settings", close),
      element("label", { class: "field-label", for: "setting-system" }, "System prompt"),
      system,
      element("div", { class: "fields" }, ...FIELDS.map((field) => numberField(field, settings[field.key], change))),
      element(
        "div",
        { class: "row spread" },
        element("button", { type: "button", class: "button quiet", onclick: reset }, "Reset"),
        element("button", { type: "button", class: "button primary", onclick: close }, "Done"),
      ),
    );
    this.#dialog.showModal();
  }
}

/** The head of a dialog: its title and a button that closes it. */
export function dialogHead(id: string, title: string, close: () => void): HTMLElement {
  return element(
    "div",
    { class: "row spread dialog-head" },
    element("h2", { id }, title),
    element("button", { type: "button", class: "icon-button", "aria-label": "Close", onclick: close }, icon("close")),
  );
}

function numberField(field: NumberField, value: number | null, change: (changed: Partial<Settings>) => void): HTMLElement {
  const id = `setting-${field.key}`;
  const input = element("input", {
    id,
    type: "number",
    inputmode: "decimal",
    min: field.min,
    max: field.max,
    step: field.step,
    placeholder: field.placeholder,
    "aria-describedby": `${id}-hint`,
  });
  input.value = value === null ? "" : String(value);
  input.addEventListener("input", () => {
    // A number out of range is marked by the browser and not taken.
    if (input.value === "" && !input.validity.badInput) change({ [field.key]: null });
    else if (input.validity.valid) change({ [field.key]: input.valueAsNumber });
  });
  return element(
    "div",
    { class: "field" },
    element("label", { class: "field-label", for: id }, field.label),
    input,
    element("p", { id: `${id}-hint`, class: "field-hint" }, field.hint),
  );
}
