/**
 * How long to wait before trying again. Every delay has chance in it, so that a thousand pages
 * that lost one server do not all come back in the same moment.
 */

/** The longest wait that a server can ask for with `Retry-After`, in milliseconds. */
const LONGEST_ASKED = 5 * 60_000;

/**
 * The delay before try number `attempt` (0 is the first repetition), in milliseconds: doubles
 * from `base` to `cap`, and lies anywhere between half of that and all of it.
 */
export function backoff(attempt, { base = 1_000, cap = 30_000, random = Math.random } = {}) {
  const full = Math.min(cap, base * 2 ** Math.min(attempt, 20));
  return full / 2 + random() * (full / 2);
}

/**
 * What a `Retry-After` header asks for, in milliseconds from `now`; `null` if it is absent or
 * cannot be read. Seconds or an HTTP date (RFC 9110 section 10.2.3); at most five minutes.
 */
export function retryAfter(header, now = Date.now()) {
  if (!header) return null;
  const text = header.trim();
  const delay = /^\d+$/.test(text) ? Number(text) * 1_000 : Date.parse(text) - now;
  return Number.isNaN(delay) ? null : Math.min(Math.max(delay, 0), LONGEST_ASKED);
}
