/** Everything that the page says in words, apart from what stands in index.html. */

/** The state of the connection: `short` is always shown, `long` where there is more to say. */
export function statusWords({ state, slow, tabs, problem }) {
  switch (state) {
    case "live":
      return { short: "Connected" };
    case "open":
      return { short: "Catching up…" };
    case "connecting":
      return slow
        ? {
            short: "Connecting…",
            long: "The server has not answered yet. If this chat is open in many tabs of this browser, close one of them; otherwise the server may be away. The page keeps trying.",
          }
        : { short: "Connecting…" };
    case "quiet":
      return {
        short: "No word from the server",
        long: "The server has been silent for longer than it should. What you write is kept, and sent when it answers.",
      };
    case "reconnecting":
      return slow
        ? {
            short: "Reconnecting…",
            long: "The server does not answer. The page keeps trying; what you write is kept, and sent when it is back.",
          }
        : { short: "Reconnecting…" };
    case "waiting":
      return {
        short: "Waiting for a free connection",
        long: `Over HTTP/1.1 a browser opens six connections to one server, and ${tabs} other tabs of this chat use them. What is new is read every few seconds meanwhile. Close one of those tabs and this one goes on; with HTTPS, and so HTTP/2, there is room for all.`,
      };
    case "paused":
      return { short: "Paused in the background" };
    case "offline":
      return {
        short: "No network",
        long: "What you write is kept here, and sent when the network is back.",
      };
    case "refused":
      return { short: "Refused by the server", long: problemWords(problem) };
    default:
      return { short: "Not connected" };
  }
}

/** A gap in the log, in a sentence. */
export function gapWords({ from, to, reason }) {
  if (from === null || from === undefined || to === null || to === undefined) {
    return "Messages may be missing here: the server no longer knows where this page had left off.";
  }
  const count = to - from + 1;
  const [some, are] =
    count === 1 ? ["1 message", "is"] : [`${count.toLocaleString()} messages`, "are"];
  if (reason === "retention") {
    const they = count === 1 ? "it was" : "they were";
    return `${some} ${are} missing here: ${they} older than what the server keeps.`;
  }
  if (reason === "epoch") {
    const which = count === 1 ? `number ${from}` : `numbers ${from} to ${to}`;
    return `The server was restored from a backup: ${some}, ${which}, ${are} no longer on it.`;
  }
  if (reason === "damaged") {
    const they = count === 1 ? "it" : "them";
    return `${some} ${are} missing here: the server's disk has damaged ${they}.`;
  }
  return `${some} ${are} missing here.`;
}

/** What stands before the oldest message that the server has; `first` is its number. */
export function beginningWords(first) {
  if (!(first > 1)) return "This is the beginning of the channel.";
  const count = first - 1;
  return count === 1
    ? "1 earlier message is no longer kept by the server."
    : `${count.toLocaleString()} earlier messages are no longer kept by the server.`;
}

/** Events that are not messages; `types` are their names, as far as known. */
export function othersWords(count, types) {
  const some = count === 1 ? "1 other event" : `${count.toLocaleString()} other events`;
  return types.length === 0 ? some : `${some} (${types.join(", ")})`;
}

/** Why a request failed. */
export function problemWords(problem) {
  if (!problem) return "The server did not say why.";
  const sentence = problem.detail || problem.title || `The server answered ${problem.status}.`;
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}

/** The state of an own message. */
export function postWords({ state, problem }) {
  if (state === "sent") return "sent";
  if (state === "failed") return "not sent";
  return problem ? "sending, trying again…" : "sending…";
}

export function newerWords(count) {
  return count === 1 ? "1 new message" : `${count.toLocaleString()} new messages`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const date = new Intl.DateTimeFormat(undefined, {
  weekday: "long",
  day: "numeric",
  month: "long",
  year: "numeric",
});

export function timeWords(at) {
  return clock.format(at);
}

export function momentWords(at) {
  return full.format(at);
}

export function dayWords(at, now = new Date()) {
  const yesterday = new Date(now);
  yesterday.setDate(now.getDate() - 1);
  if (at.toDateString() === now.toDateString()) return "Today";
  if (at.toDateString() === yesterday.toDateString()) return "Yesterday";
  return date.format(at);
}
