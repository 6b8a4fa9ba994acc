/** Markdown that grows: blocks that did not change keep their elements. */

import { element } from "../dom.js";
import { renderMarkdown, splitBlocks } from "../markdown.js";
import { copyButton } from "./copy-button.js";

export class MarkdownView {
  readonly root = element("div", { class: "markdown", dir: "auto" });
  #blocks: { readonly source: string; readonly element: HTMLElement }[] = [];

  /** Shows the text. */
  update(text: string): void {
    const sources = splitBlocks(text);
    let same = 0;
    while (same < sources.length && this.#blocks[same]?.source === sources[same]) same += 1;
    for (const { element: stale } of this.#blocks.splice(same)) stale.remove();
    for (const source of sources.slice(same)) {
      const block = element("div", { class: "block" });
      block.append(renderMarkdown(source));
      block.querySelectorAll("pre").forEach(decorateCode);
      block.querySelectorAll("table").forEach(wrapTable);
      this.#blocks.push({ source, element: block });
      this.root.append(block);
    }
  }
}

/** Gives a code block a bar with its language and a copy button. */
function decorateCode(pre: HTMLPreElement): void {
  const language = /language-([\w+#.-]+)/.exec(pre.querySelector("code")?.className ?? "")?.[1] ?? "";
  const frame = element("div", { class: "code" });
  pre.replaceWith(frame);
  pre.tabIndex = 0; // A block wider than the page scrolls; the keyboard must reach it.
  const bar = element("div", { class: "code-bar" }, element("span", {}, language));
  bar.append(copyButton("Copy code", "icon-button small", () => pre.textContent.replace(/\n$/, "")));
  frame.append(bar, pre);
}

function wrapTable(table: HTMLTableElement): void {
  const frame = element("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Table" });
  table.replaceWith(frame);
  frame.append(table);
}
