/** The list of conversations. A column on a wide screen, a drawer on a narrow one. */

import type { Conversation } from "../conversation.js";
import { byId, element } from "../dom.js";
import { icon } from "../icons.js";

const WIDE = matchMedia("(min-width: 60rem)");
const KEY = "webcompile.sidebar";

export interface SidebarActions {
  readonly open: (id: string) => void;
  readonly remove: (id: string) => void;
  readonly create: () => void;
}

export class Sidebar {
  readonly #root = byId("sidebar", HTMLElement);
  readonly #scrim = byId("scrim", HTMLElement);
  readonly #toggle = byId("toggle-sidebar", HTMLButtonElement);
  readonly #actions: SidebarActions;
  #open: boolean;
  #shown = "";

  constructor(actions: SidebarActions) {
    this.#actions = actions;
    this.#open = WIDE.matches && localStorage.getItem(KEY) !== "closed";
    this.#toggle.addEventListener("click", () => {
      this.#set(!this.#open, true);
    });
    this.#scrim.addEventListener("click", () => {
      this.#set(false);
    });
    this.#root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || WIDE.matches) return;
      event.stopPropagation();
      this.#set(false);
      this.#toggle.focus();
    });
    WIDE.addEventListener("change", () => {
      this.#set(WIDE.matches && localStorage.getItem(KEY) !== "closed");
    });
    this.#set(this.#open);
  }

  /** Shows the conversations, newest first. */
  update(conversations: readonly Conversation[], currentId: string): void {
    const shown = JSON.stringify([currentId, conversations.map(({ id, title }) => [id, title])]);
    if (shown === this.#shown) return; // New elements would take the focus from the old ones.
    this.#shown = shown;
    const items = conversations.map(({ id, title }) => {
      const open = element(
        "button",
        { type: "button", class: "chat", "aria-current": id === currentId ? "page" : null },
        title === "" ? "New chat" : title,
      );
      open.addEventListener("click", () => {
        this.#actions.open(id);
        this.#closeDrawer();
      });
      const remove = element(
        "button",
        { type: "button", class: "icon-button small", "aria-label": `Delete “${title}”`, title: "Delete" },
        icon("trash"),
      );
      remove.addEventListener("click", () => {
        this.#actions.remove(id);
      });
      return element("li", {}, open, remove);
    });
    const create = element("button", { type: "button", class: "button wide" }, icon("plus"), "New chat");
    create.addEventListener("click", () => {
      this.#actions.create();
      this.#closeDrawer();
    });
    this.#root.replaceChildren(
      create,
      items.length > 0
        ? element("ul", { class: "chats" }, ...items)
        : element("p", { class: "empty" }, "Conversations are kept in this browser and appear here."),
    );
  }

  #closeDrawer(): void {
    if (!WIDE.matches) this.#set(false);
  }

  #set(open: boolean, remember = false): void {
    this.#open = open;
    if (remember && WIDE.matches) localStorage.setItem(KEY, open ? "open" : "closed");
    document.body.classList.toggle("with-sidebar", open);
    this.#root.inert = !open;
    this.#scrim.hidden = !open || WIDE.matches;
    this.#toggle.setAttribute("aria-expanded", String(open));
    if (open && remember && !WIDE.matches) this.#root.querySelector("button")?.focus();
  }
}
