/** Whether this browser can run a model, and what its user can do if not. */

export type Support =
  | { readonly ok: true; readonly software: boolean; readonly adapter: string }
  | { readonly ok: false; readonly problem: "insecure" | "missing" | "no-adapter" };

interface AdapterInfo {
  readonly vendor?: string;
  readonly architecture?: string;
  readonly description?: string;
  readonly device?: string;
  readonly isFallbackAdapter?: boolean;
}

interface Gpu {
  requestAdapter(): Promise<{ readonly info?: AdapterInfo } | null>;
}

/** Asks the browser for a WebGPU adapter. */
export async function checkSupport(): Promise<Support> {
  const gpu = (navigator as { readonly gpu?: Gpu }).gpu;
  if (!window.isSecureContext) return { ok: false, problem: "insecure" };
  if (gpu === undefined) return { ok: false, problem: "missing" };
  const adapter = await gpu.requestAdapter().catch(() => null);
  if (adapter === null) return { ok: false, problem: "no-adapter" };
  return { ok: true, software: isSoftware(adapter.info ?? {}), adapter: describeAdapter(adapter.info ?? {}) };
}

/** Whether the adapter computes on the CPU. Not every software adapter says so itself: its name does. */
export function isSoftware(info: AdapterInfo): boolean {
  if (info.isFallbackAdapter === true) return true;
  const text = [info.vendor, info.architecture, info.device, info.description].join(" ");
  return /swiftshader|llvmpipe|lavapipe|microsoft basic render|\bwarp\b/i.test(text);
}

/** "NVIDIA Ampere", from the little that browsers tell. */
export function describeAdapter(info: AdapterInfo): string {
  if (info.description !== undefined && info.description !== "") return info.description;
  const words = [info.vendor, info.architecture].filter((word) => word !== undefined && word !== "");
  return words.length > 0 ? words.join(" ") : "unnamed adapter";
}

export interface Advice {
  readonly title: string;
  readonly text: string;
  readonly steps: readonly string[];
}

/** What is wrong and what to do about it in this browser. */
export function advice(problem: "insecure" | "missing" | "no-adapter", userAgent: string): Advice {
  if (problem === "insecure") {
    return {
      title: "This page needs https",
      text: "Browsers offer WebGPU only to pages from https addresses and from this computer itself.",
      steps: ["Open the same address with https:// in front.", "On the computer that serves the page, open http://localhost with its port."],
    };
  }
  const title = problem === "missing" ? "This browser has no WebGPU" : "WebGPU found no graphics adapter";
  const text =
    problem === "missing"
      ? "The model computes on your graphics processor through WebGPU, which this browser does not offer."
      : "The browser knows WebGPU, but gives no access to a graphics processor on this device.";
  return { title, text, steps: browserSteps(userAgent, problem) };
}

function browserSteps(userAgent: string, problem: "missing" | "no-adapter"): readonly string[] {
  const apple = /iPhone|iPad|Macintosh/.test(userAgent);
  if (userAgent.includes('Firefox/')) {
    return [
      "Update Firefox: WebGPU is on in 141 and later on Windows, and in 145 and later on macOS.",
      "On Linux and Android open about:config and set dom.webgpu.enabled to true, or use a Chromium browser.",
    ];
  }
  if (/Chrome\/|Chromium\//.test(userAgent)) {
    const steps = ["In the browser's settings under System, switch on graphics acceleration, and restart the browser."];
    if (problem === "missing") steps.unshift("Update the browser: WebGPU is on in version 113 and later (121 on Android).");
    if (/Linux|X11/.test(userAgent) && !userAgent.includes('Android')) {
      steps.push("On Linux open chrome://flags/#enable-unsafe-webgpu, switch it on, and restart the browser.");
    }
    return [...steps, "Look at chrome://gpu: the line WebGPU says what stands in the way."];
  }
  if (apple && userAgent.includes('Safari/')) {
    return ["Update the system: Safari has WebGPU from version 26 (macOS, iOS and iPadOS 26).", "Until then use Chrome or Edge on a Mac."];
  }
  return ["Use a current Chrome, Edge, Safari 26 or Firefox.", "Update the graphics driver."];
}
