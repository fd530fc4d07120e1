import { newerWords } from "./words.js";

/** Closer to the end than this counts as being there, in pixels. */
const NEAR = 48;

/**
 * Keeps the place in a scrolled list: at the end it follows what comes; elsewhere nothing moves
 * under the reader's eyes, and a button says how many new messages there are.
 */
export class ScrollKeeper {
  #box;
  #button;
  #label;
  #follows = true;
  #unseen = 0;
  #frame = 0;

  constructor({ box, content, button, label }) {
    this.#box = box;
    this.#button = button;
    this.#label = label;
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    button.addEventListener("click", () => {
      this.toEnd();
      box.focus({ preventScroll: true });
    });
    const resized = new ResizeObserver(() => this.#settle());
    resized.observe(box);
    resized.observe(content);
  }

  /** Whether the end is in view, and stays so. */
  get follows() {
    return this.#follows;
  }

  /** Something was added at the end; `counts` if it is worth the button. */
  added({ counts }) {
    if (this.#follows) {
      this.#settle();
    } else if (counts) {
      this.#unseen += 1;
      this.#show();
    }
  }

  /** Goes to the end and stays there. */
  toEnd() {
    this.#follows = true;
    this.#unseen = 0;
    this.#show();
    this.#box.scrollTop = this.#box.scrollHeight;
  }

  /** Runs a change above the view, which stays where it is. */
  keep(change) {
    const fromEnd = this.#box.scrollHeight - this.#box.scrollTop;
    change();
    this.#box.scrollTop = this.#box.scrollHeight - fromEnd;
  }

  #settle() {
    if (!this.#follows || this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.#follows) this.#box.scrollTop = this.#box.scrollHeight;
    });
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    if (this.#frame) return; // about to be put at the end
    this.#follows = scrollHeight - scrollTop - clientHeight < NEAR;
    if (this.#follows) this.#unseen = 0;
    this.#show();
  }

  #show() {
    this.#button.hidden = this.#follows;
    this.#label.textContent = this.#unseen ? newerWords(this.#unseen) : "To the newest";
  }
}
