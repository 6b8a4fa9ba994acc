/** The model chooser, with facts about the model that runs. */

import { byId, element } from "../dom.js";
import { formatBytes } from "../format.js";
import type { ModelEntry } from "../models.js";
import type { Session } from "../session.js";
import { describeAdapter } from "../support.js";
import { dialogHead } from "./settings-dialog.js";

export class ModelsDialog {
  readonly #dialog = byId("models", HTMLDialogElement);
  readonly #choose: (model: ModelEntry) => void;

  constructor(choose: (model: ModelEntry) => void) {
    this.#choose = choose;
  }

  /** Opens the dialog. */
  show(models: readonly ModelEntry[], session: Session): void {
    const close = (): void => {
      this.#dialog.close();
    };
    this.#dialog.replaceChildren(
      dialogHead("models-title", models.length > 1 ? "Choose a model" : "Model", close),
      element(
        "div",
        { class: "options", role: "radiogroup", "aria-label": "Models" },
        ...models.map((model) => this.#option(model, model === session.model)),
      ),
      ...runningFacts(session),
    );
    this.#dialog.showModal();
  }

  #option(model: ModelEntry, chosen: boolean): HTMLElement {
    const input = element("input", { type: "radio", name: "model", value: model.id, checked: chosen });
    input.addEventListener("change", () => {
      this.#choose(model);
    });
    return element(
      "label",
      { class: "option" },
      input,
      element(
        "span",
        {},
        element("strong", {}, model.name),
        element("span", { class: "option-facts" }, `${model.quantization} · ${formatBytes(model.nbytes)}`),
      ),
    );
  }
}

function runningFacts({ state }: Session): readonly HTMLElement[] {
  if (state.kind !== "ready") return [];
  const { info } = state.engine;
  const facts: readonly (readonly [string, string])[] = [
    ["Graphics adapter", describeAdapter(info.adapter)],
    ["Compiled form", info.variant],
    ["Context window", `${String(info.contextTokens)} tokens`],
    ["Memory", `${formatBytes(info.weightBytes)} weights, ${formatBytes(info.kvCacheBytes)} KV cache`],
    ["Parameters", `${(info.model.num_parameters / 1e6).toFixed(0)} million`],
  ];
  return [
    element("h3", {}, "Running now"),
    element("dl", { class: "facts" }, ...facts.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)])),
  ];
}
