/** A line within one thread. A MessageChannel would copy what it carries, and functions cannot be copied. */

import type { ClientMessage, HostMessage, Port } from "./protocol.js";

class LocalPort<Sent, Received> implements Port<Sent, Received> {
  onmessage: ((event: MessageEvent<Received>) => void) | null = null;
  other: LocalPort<Received, Sent> | undefined;

  postMessage(data: Sent): void {
    queueMicrotask(() => this.other?.onmessage?.(new MessageEvent("message", { data })));
  }
}

/** The page's end and the engine's. */
export function localLine(): [client: Port<ClientMessage, HostMessage>, host: Port<HostMessage, ClientMessage>] {
  const client = new LocalPort<ClientMessage, HostMessage>();
  const host = new LocalPort<HostMessage, ClientMessage>();
  client.other = host;
  host.other = client;
  return [client, host];
}
