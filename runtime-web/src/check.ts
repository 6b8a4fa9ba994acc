/** Checks of values that come from outside: each takes a value and its name, and returns it typed or throws. */

/** A check; the name goes into its message. */
export type Check<T> = (value: unknown, name: string) => T;

/** What a failed check throws. Callers give it a code. */
export class CheckError extends Error {}

/** Runs a check and turns its failure into the error that `wrap` makes. */
export function checked<T>(check: () => T, wrap: (message: string) => Error): T {
  try {
    return check();
  } catch (error) {
    if (error instanceof CheckError) throw wrap(error.message);
    throw error;
  }
}

/** A text, of a form if one is given. */
export function text(form?: RegExp): Check<string> {
  return (value, name) => {
    if (typeof value !== "string") throw expected(name, "a string", value);
    if (form?.test(value) === false) throw expected(name, `text like ${form.source}`, value);
    return value;
  };
}

/** A finite number between bounds. */
export function number(atLeast = -Infinity, atMost = Infinity): Check<number> {
  return (value, name) => {
    const ok = typeof value === "number" && Number.isFinite(value) && value >= atLeast && value <= atMost;
    if (!ok) throw expected(name, `a number from ${atLeast} to ${atMost}`, value);
    return value;
  };
}

/** A whole number between bounds. */
export function integer(atLeast = Number.MIN_SAFE_INTEGER, atMost = Number.MAX_SAFE_INTEGER): Check<number> {
  return (value, name) => {
    const ok = typeof value === "number" && Number.isSafeInteger(value) && value >= atLeast && value <= atMost;
    if (!ok) throw expected(name, `a whole number from ${atLeast} to ${atMost}`, value);
    return value;
  };
}

/** true or false. */
export const boolean: Check<boolean> = (value, name) => {
  if (typeof value !== "boolean") throw expected(name, "true or false", value);
  return value;
};

/** One of a few values. */
export function oneOf<const T extends string | number | boolean | null>(...values: readonly T[]): Check<T> {
  return (value, name) => {
    const found = values.find((candidate) => candidate === value);
    if (found === undefined) throw expected(name, `one of ${values.map((one) => JSON.stringify(one)).join(", ")}`, value);
    return found;
  };
}

/** null, or what the check says. */
export function nullable<T>(check: Check<T>): Check<T | null> {
  return (value, name) => (value === null ? null : check(value, name));
}

/** Nothing (undefined or null), or what the check says. */
export function optional<T>(check: Check<T>): Check<T | undefined> {
  return (value, name) => (value === undefined || value === null ? undefined : check(value, name));
}

/** A list of at most so many. */
export function list<T>(check: Check<T>, atMost = 1_000_000): Check<T[]> {
  return (value, name) => {
    if (!Array.isArray(value)) throw expected(name, "a list", value);
    if (value.length > atMost) throw new CheckError(`${name} has ${value.length} entries, more than ${atMost}`);
    return value.map((item, index) => check(item, `${name}[${index}]`));
  };
}

/** An object with exactly these fields. */
export function record<T>(fields: { readonly [K in keyof T]-?: Check<T[K]> }): Check<T> {
  return (value, name) => {
    const object = plainObject(value, name);
    const unknown = Object.keys(object).filter((key) => !Object.hasOwn(fields, key));
    if (unknown.length > 0) throw new CheckError(`${name} has unknown fields: ${unknown.join(", ")}`);
    const entries = Object.entries<Check<unknown>>(fields);
    const result: Record<string, unknown> = {};
    for (const [key, check] of entries) result[key] = check(object[key], `${name}.${key}`);
    return result as T;
  };
}

/** Any object that is not a list. */
export function plainObject(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw expected(name, "an object", value);
  return value as Record<string, unknown>;
}

function expected(name: string, what: string, value: unknown): CheckError {
  const got = value === undefined ? "nothing" : JSON.stringify(value);
  return new CheckError(`${name} must be ${what}, got ${got.length > 80 ? `${got.slice(0, 80)}…` : got}`);
}
