/** How far loading is, stage by stage, or why it failed. */

import type { LoadProgress } from "webcompile";

import { element } from "../dom.js";
import { formatBytes, formatSeconds } from "../format.js";
import type { Session, Stages } from "../session.js";
import { announce } from "./announcer.js";
import { errorCard, type ErrorAction } from "./error-card.js";

const STAGES = ["download", "compile", "upload"] as const;
type Stage = (typeof STAGES)[number];

const LABELS: Readonly<Record<Stage, string>> = {
  download: "Download",
  compile: "Compile shaders",
  upload: "Upload to the GPU",
};

/** What a stage's row says beside its name. */
export function stageDetail(stage: Stage, progress: LoadProgress | undefined): string {
  if (progress === undefined) return "";
  const { loaded, total, bytesPerSecond, secondsLeft } = progress;
  if (stage === "compile") return total > 0 ? `${String(loaded)} of ${String(total)}` : "";
  const done = total > 0 && loaded >= total;
  const parts = [done ? formatBytes(total) : `${formatBytes(loaded)} of ${formatBytes(total)}`];
  if (stage === "download" && !done) {
    if (bytesPerSecond !== undefined && bytesPerSecond > 0) parts.push(`${formatBytes(bytesPerSecond)}/s`);
    if (secondsLeft !== undefined && Number.isFinite(secondsLeft)) parts.push(`${formatSeconds(secondsLeft)} left`);
  }
  return parts.join(" · ");
}

interface Row {
  readonly root: HTMLElement;
  readonly label: HTMLElement;
  readonly detail: HTMLElement;
  readonly bar: HTMLProgressElement;
}

export class LoadCard {
  readonly #root: HTMLElement;
  readonly #title = element("p", { class: "load-title" });
  readonly #rows = new Map<Stage, Row>();
  readonly #progress = element("div", {});
  readonly #failure = element("div", {});
  readonly #retry: () => void;
  readonly #chooseModel: () => void;
  #announced: string | undefined;
  #shownError: unknown;

  constructor(root: HTMLElement, actions: { retry: () => void; cancel: () => void; chooseModel: () => void }) {
    this.#root = root;
    this.#retry = actions.retry;
    this.#chooseModel = actions.chooseModel;
    const cancel = element("button", { type: "button", class: "button quiet", onclick: actions.cancel }, "Stop");
    const list = element("ul", { class: "stages" });
    for (const stage of STAGES) {
      const label = element("span", { id: `stage-${stage}` }, LABELS[stage]);
      const detail = element("span", { class: "detail" });
      const bar = element("progress", { max: 1, value: 0, "aria-labelledby": `stage-${stage}` });
      const root = element("li", { class: "stage", "data-stage": stage }, label, detail, bar);
      this.#rows.set(stage, { root, label, detail, bar });
      list.append(root);
    }
    this.#progress.append(element("div", { class: "row spread load-head" }, this.#title, cancel), list);
    root.append(this.#progress, this.#failure);
  }

  /** Shows the session's state; hidden when there is nothing to tell. `told`: a message tells of the failure already. */
  update(session: Session, told: boolean): void {
    const { state, model } = session;
    this.#root.hidden = state.kind !== "loading" && (state.kind !== "failed" || told);
    this.#progress.hidden = state.kind !== "loading";
    this.#failure.hidden = state.kind !== "failed";
    if (state.kind === "loading") {
      this.#title.textContent = `Loading ${model?.name ?? "the model"}`;
      this.#showStages(state.stages);
    }
    if (state.kind === "failed" && state.error !== this.#shownError) {
      const actions: ErrorAction[] = [{ label: "Try again", run: this.#retry }];
      if (state.error.code === "storage_full" || state.error.code === "out_of_memory") {
        actions.push({ label: "Models", run: this.#chooseModel });
      }
      this.#failure.replaceChildren(errorCard(state.error, actions));
    }
    this.#shownError = state.kind === "failed" ? state.error : undefined;
    if (this.#announced !== undefined && state.kind === "ready") announce("The model is ready.");
    if (state.kind !== "loading") this.#announced = undefined;
  }

  #showStages(stages: Stages): void {
    for (const [stage, row] of this.#rows) {
      const progress = stages[stage];
      const fraction = progress === undefined || progress.total === 0 ? 0 : Math.min(1, progress.loaded / progress.total);
      row.bar.value = fraction;
      row.root.classList.toggle("begun", progress !== undefined);
      row.root.classList.toggle("done", fraction === 1);
      row.detail.textContent = stageDetail(stage, progress);
      if (stage === "download") row.label.textContent = progress?.fromCache === true ? "Read from this device" : LABELS.download;
    }
    // Said once, when loading begins: the bars have their values for who asks, and a running commentary is noise.
    if (this.#announced === undefined) {
      this.#announced = "begun";
      announce(this.#title.textContent);
    }
  }
}
