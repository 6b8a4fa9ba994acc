/**
 * Markdown of a model to elements. A model's output is untrusted: raw HTML stays text, images become links (a fetched
 * image could carry the conversation away), and what is left passes DOMPurify.
 */

import DOMPurify from "dompurify";
import MarkdownIt from "markdown-it";

const parser = new MarkdownIt({ html: false, linkify: true, breaks: true });
parser.disable("image");
parser.linkify.set({ fuzzyLink: false, fuzzyEmail: false }); // "main.py" is a file, not a host in Paraguay

const ALLOWED_TAGS = [
  ..."p br hr h1 h2 h3 h4 h5 h6 strong em s a code pre blockquote ul ol li table thead tbody tr th td".split(" "),
  "#text",
];

const purifier = DOMPurify(window);
purifier.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
});

/** The text as a safe fragment. */
export function renderMarkdown(text: string): DocumentFragment {
  return purifier.sanitize(parser.render(text), {
    ALLOWED_TAGS,
    ALLOWED_ATTR: ["href", "title", "class", "start", "align"],
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
    RETURN_DOM_FRAGMENT: true,
  });
}

/**
 * The source of each top-level block: a paragraph, a list, a code block. While an answer grows only its last blocks
 * change, so the page renders those alone and keeps the reader's selection in the others.
 */
export function splitBlocks(text: string): string[] {
  const lines = text.split("\n");
  const blocks: string[] = [];
  let start = 0;
  for (const token of parser.parse(text, {})) {
    if (token.level !== 0 || token.nesting < 0 || token.map === null) continue;
    const [begin, end] = token.map;
    // Lines that belong to no block (reference definitions) go with the block after them.
    blocks.push(lines.slice(Math.min(start, begin), end).join("\n"));
    start = end;
  }
  return blocks;
}
