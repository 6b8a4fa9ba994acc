/** The one error type of the package, and its form on the wire between threads. */

import { ERROR_CODES, type ErrorCode } from "./generated/contracts.js";

/** A {@link WebcompileError} as plain data, the same as Python's `to_dict`. */
export interface ErrorData {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string;
}

/** An error a user can act on: `message` says what was got and what was expected, `hint` what to do. */
export class WebcompileError extends Error {
  override readonly name = "WebcompileError";
  /** Stable; see `ERROR_CODES` for what each means. */
  readonly code: ErrorCode;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, hint = "", options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.hint = hint;
  }

  /** The form in which the error crosses to another thread. */
  toData(): ErrorData {
    return { code: this.code, message: this.message, hint: this.hint };
  }

  /** The error that {@link toData} came from. */
  static fromData({ code, message, hint }: ErrorData): WebcompileError {
    return new WebcompileError(code, message, hint);
  }

  /** Any thrown value as a WebcompileError: what is not one becomes `internal`. */
  static from(thrown: unknown): WebcompileError {
    if (thrown instanceof WebcompileError) return thrown;
    const message = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
    return new WebcompileError("internal", message, "This is a bug in webcompile: please report it.", { cause: thrown });
  }
}

/** Whether a string is one of the codes. */
export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERROR_CODES, code);
}

/** Throws `aborted` when the signal says so. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new WebcompileError("aborted", "the request was cancelled");
}
