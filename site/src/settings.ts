/** How the model is asked. Kept in localStorage; numbers left empty mean the model's own default. */

const KEY = "webcompile.settings.1";

export interface Settings {
  readonly systemPrompt: string;
  readonly temperature: number | null;
  readonly topP: number | null;
  readonly maxTokens: number | null;
  readonly seed: number | null;
}

export const DEFAULT_SETTINGS: Settings = { systemPrompt: "", temperature: null, topP: null, maxTokens: null, seed: null };

/** The kept settings; unreadable parts fall back to the defaults. */
export function loadSettings(): Settings {
  let stored: Partial<Record<keyof Settings, unknown>> = {};
  try {
    const parsed: unknown = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    if (typeof parsed === "object" && parsed !== null) stored = parsed;
  } catch {
    // Unreadable: the defaults.
  }
  const number = (value: unknown): number | null => (typeof value === "number" && Number.isFinite(value) ? value : null);
  return {
    systemPrompt: typeof stored.systemPrompt === "string" ? stored.systemPrompt : "",
    temperature: number(stored.temperature),
    topP: number(stored.topP),
    maxTokens: number(stored.maxTokens),
    seed: number(stored.seed),
  };
}

/** Keeps the settings. */
export function saveSettings(settings: Settings): void {
  localStorage.setItem(KEY, JSON.stringify(settings));
}
