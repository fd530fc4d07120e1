/**
 * What went wrong with a request, in the server's words where it has any.
 */

/** An answer that was not a success. `status` is 0 when there was none at all. */
export class Problem extends Error {
  constructor({ status = 0, title = "", detail = "", type = "about:blank" }) {
    super(detail || title);
    this.name = "Problem";
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.type = type;
  }

  /** Whether the same request may succeed later: no answer, a server's own trouble, too many. */
  get passing() {
    return this.status === 0 || this.status >= 500 || [408, 425, 429].includes(this.status);
  }

  /** What is kept of it in storage. */
  toJSON() {
    const { status, title, detail, type } = this;
    return { status, title, detail, type };
  }

  /** No answer came. */
  static unreachable() {
    return new Problem({ title: "The server cannot be reached." });
  }

  /** Reads problem+json (RFC 9457); makes do with the bare status for everything else. */
  static async from(response) {
    let body = null;
    try {
      if (/json/.test(response.headers.get("content-type") ?? "")) body = await response.json();
    } catch {
      // Whoever answered says JSON and sends something else; its status is all that is known.
    }
    const text = (value) => (typeof value === "string" ? value : "");
    return new Problem({
      status: response.status,
      title: text(body?.title) || `The server answered ${response.status}.`,
      detail: text(body?.detail),
      type: text(body?.type) || "about:blank",
    });
  }
}
