/** The page's end of the protocol: calls, their items and their cancellation. */

import { WebcompileError } from "./errors.js";
import type { ClientMessage, HostMessage, Method, Methods, Port } from "./protocol.js";

interface Pending {
  onItem(value: unknown): void;
  resolve(value: unknown): void;
  reject(error: WebcompileError): void;
}

/** Whom to tell what belongs to no call. */
export interface ConnectionEvents {
  onWarning(warning: WebcompileError): void;
  onLost(error: WebcompileError): void;
}

/** Calls methods of a host. */
export class Connection {
  readonly #port: Port<ClientMessage, HostMessage>;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #closed: WebcompileError | undefined;

  constructor(port: Port<ClientMessage, HostMessage>, events: ConnectionEvents) {
    this.#port = port;
    port.onmessage = ({ data }) => {
      if (data.type === "warning") events.onWarning(WebcompileError.fromData(data.warning));
      else if (data.type === "lost") events.onLost(WebcompileError.fromData(data.error));
      else this.#receive(data);
    };
  }

  /** Calls a method. Aborting rejects at once, and the host stops. */
  async call<M extends Method>(
    method: M,
    params: Methods[M]["params"],
    { onItem, signal }: { onItem?: (item: Methods[M]["item"]) => void; signal?: AbortSignal | undefined } = {},
  ): Promise<Methods[M]["result"]> {
    if (this.#closed !== undefined) throw this.#closed;
    if (signal?.aborted) throw aborted();
    const id = this.#nextId++;
    let cancel = (): void => undefined;
    try {
      const result = await new Promise<unknown>((resolve, reject) => {
        this.#pending.set(id, { onItem: (value) => onItem?.(value as Methods[M]["item"]), resolve, reject });
        cancel = () => {
          if (!this.#pending.delete(id)) return;
          this.#send({ type: "cancel", id });
          reject(aborted());
        };
        signal?.addEventListener("abort", cancel);
        this.#send({ type: "call", id, method, params } as ClientMessage);
      });
      return result as Methods[M]["result"];
    } finally {
      signal?.removeEventListener("abort", cancel);
      this.#pending.delete(id);
    }
  }

  /** Rejects all calls, now and later. */
  close(error: WebcompileError): void {
    this.#closed ??= error;
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
  }

  /** Says something after which nothing is expected. */
  #send(message: ClientMessage): void {
    this.#port.postMessage(message, []);
  }

  #receive(message: Extract<HostMessage, { id: number }>): void {
    const pending = this.#pending.get(message.id);
    if (pending === undefined) return; // Cancelled meanwhile.
    if (message.type === "item") pending.onItem(message.value);
    else if (message.type === "result") pending.resolve(message.value);
    else pending.reject(WebcompileError.fromData(message.error));
  }
}

function aborted(): WebcompileError {
  return new WebcompileError("aborted", "the request was cancelled");
}
