/** The most ids that are remembered. */
const MOST = 1_000;
const KEY = "hark-sent";

/**
 * Which messages this browser has sent, by their ids: those are the person's own. What `from` says
 * proves nothing, for anybody may claim to be anybody.
 *
 * Shared by all tabs, and kept over a reload; the oldest are forgotten.
 */
export class OwnPosts {
  #storage;
  #ids = new Set();
  #read = null;

  /** @param {Storage | null} storage such as `localStorage` */
  constructor(storage) {
    this.#storage = storage;
  }

  has(id) {
    if (!this.#ids.has(id)) this.#look();
    return this.#ids.has(id);
  }

  add(id) {
    this.#look();
    this.#ids.add(id);
    this.#ids = new Set([...this.#ids].slice(-MOST));
    try {
      this.#read = JSON.stringify([...this.#ids]);
      this.#storage?.setItem(KEY, this.#read);
    } catch {
      // Storage full or forbidden: they are known until the page is left.
    }
  }

  /** Another tab may have sent more. */
  #look() {
    try {
      const stored = this.#storage?.getItem(KEY) ?? null;
      if (stored === null || stored === this.#read) return;
      this.#read = stored;
      for (const id of JSON.parse(stored)) this.#ids.add(id);
    } catch {
      // Forbidden, or not written by this class: as good as nothing.
    }
  }
}

/** The browser's own storage; reading the property alone throws where cookies are forbidden. */
export function browserStorage() {
  try {
    return globalThis.localStorage ?? null;
  } catch {
    return null;
  }
}
