/** An error as the page shows it: the fields of the runtime's WebcompileError, kept in a conversation as JSON. */

export interface PageError {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

/** The error of anything thrown. What carries no code is a bug, and is shown as one. */
export function toPageError(thrown: unknown): PageError {
  if (thrown instanceof Error) {
    const { code, hint } = thrown as Error & { code?: unknown; hint?: unknown };
    return {
      code: typeof code === "string" ? code : "internal",
      message: thrown.message || thrown.name,
      hint: typeof hint === "string" ? hint : "",
    };
  }
  return { code: "internal", message: String(thrown), hint: "" };
}
