import { beginningWords, problemWords } from "./words.js";

const PAGE = 50;

/**
 * Loads older messages when the reader scrolls up to where they end.
 *
 * The button is what the keyboard uses, and what is left when a page could not be loaded: it is
 * not tried again by itself, so that a server in trouble is left in peace.
 */
export class Earlier {
  #options;
  #observer;
  #busy = false;
  #done = false;

  /**
   * @param {object} options
   * @param {HTMLElement} options.box what is scrolled
   * @param {HTMLElement} options.mark what stands above the oldest message
   * @param {HTMLButtonElement} options.button
   * @param {HTMLElement} options.note says what is before the oldest message
   * @param {(limit: number) => Promise<{first: number, more: boolean}>} options.load
   */
  constructor(options) {
    this.#options = options;
    options.button.addEventListener("click", () => this.load());
    this.#observer = new IntersectionObserver(([seen]) => seen.isIntersecting && this.load(), {
      root: options.box,
      rootMargin: "400px 0px 0px",
    });
  }

  /** Begins, once the newest messages are there. */
  start() {
    if (this.#done) return;
    this.#options.mark.hidden = false;
    this.#watch();
  }

  /** There is more again: entries were taken out at the top. */
  reopen() {
    if (!this.#done) return;
    this.#done = false;
    this.#options.button.hidden = false;
    this.#options.note.hidden = true;
    this.#watch();
  }

  async load() {
    if (this.#busy || this.#done) return;
    const { box, button, note, load } = this.#options;
    const usedByKeyboard = document.activeElement === button;
    this.#busy = true;
    this.#observer.disconnect();
    button.disabled = true;
    button.textContent = "Loading…";
    try {
      const { first, more } = await load(PAGE);
      this.#done = !more;
      note.textContent = beginningWords(first);
      note.hidden = more;
      button.hidden = !more;
      if (more) this.#watch();
    } catch (problem) {
      note.textContent = `Earlier messages could not be loaded. ${problemWords(problem)}`;
      note.hidden = false;
    } finally {
      this.#busy = false;
      button.disabled = false;
      button.textContent = "Show earlier messages";
      // A disabled button loses the focus.
      if (usedByKeyboard) (button.hidden ? box : button).focus({ preventScroll: true });
    }
  }

  /** An observer reports at least once, so a mark that is still in view loads the next page. */
  #watch() {
    this.#observer.observe(this.#options.mark);
  }
}
