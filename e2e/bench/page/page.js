// What both pages have in common. `startPage` loads at once and answers the prompt in the address,
// without waiting for a driver.
/* global URLSearchParams */

/** `side` has `load()`, `generate({promptIds, maxTokens})` with times of `performance.now()`, and `counts()`. */
export function startPage(side) {
  const query = new URLSearchParams(location.search);
  const promptIds = (query.get("prompt") ?? "").split(",").filter(Boolean).map(Number);

  const operations = {
    ...side,
    /** What the page did by itself: seconds from its opening to the first token. */
    async opened() {
      const info = await loaded;
      const { tokenIds, firstAt } = await first;
      return { ...info, tokenIds, firstTokenSeconds: firstAt / 1000 };
    },
    /** Loads only, so that the browser holds the files and the driver what it keeps of kernels. */
    async fill() {
      await loaded;
    },
  };
  const loaded = side.load();
  const first = promptIds.length > 0 ? loaded.then(() => side.generate({ promptIds, maxTokens: 3 })) : undefined;
  first?.catch(() => undefined); // `opened` reports it.

  window.benchCall = async (name, request) => {
    try {
      return { value: await operations[name](request) };
    } catch (error) {
      return { error: `${error?.code ?? error?.name ?? "Error"}: ${error?.message ?? error}` };
    }
  };
}
