import { withLinks } from "./links.js";
import {
  dayWords,
  gapWords,
  momentWords,
  othersWords,
  postWords,
  problemWords,
  timeWords,
} from "./words.js";

/** Messages of one sender stand together if no more than this lies between them. */
const TOGETHER = 5 * 60_000;
/** The most entries on the page, and how many go at once when there are more. */
const MOST_ENTRIES = 1_000;
const TRIM = 300;
/** The number of colours that style.css has for people. */
const COLOURS = 8;

/**
 * The list of messages: the channel's log in its order, and below it what is not sent yet.
 *
 * Everything that someone else wrote gets into the page as text, never as HTML.
 */
export class MessageList {
  #list;
  #templates;
  #isOwn;
  #act;
  /** `epoch:seq` → entry */
  #events = new Map();
  /** id of an own post → entry */
  #posts = new Map();
  /** entry → what is known of it: `{epoch, seq, at, sender, gone}` */
  #facts = new WeakMap();
  #newest = null;

  /**
   * @param {object} options
   * @param {HTMLOListElement} options.list
   * @param {{message, gap, others}} options.templates
   * @param {(id: string) => boolean} options.isOwn whether this browser sent the message
   * @param {{retry(id), discard(id), leave()}} options.act what the buttons of an unsent message
   *   do; `leave` finds the focus a place when they go away
   */
  constructor({ list, templates, isOwn, act }) {
    this.#list = list;
    this.#templates = templates;
    this.#isOwn = isOwn;
    this.#act = act;
  }

  get empty() {
    return this.#list.childElementCount === 0;
  }

  /** The lowest number shown, `null` if there is none. */
  get oldest() {
    for (const entry of this.#list.children) {
      const { seq } = this.#facts.get(entry) ?? {};
      if (seq !== undefined) return seq;
    }
    return null;
  }

  /** Adds an event at the end of the log. Gives whether it was not there before. */
  append(event) {
    const key = `${event.epoch}:${event.seq}`;
    if (this.#events.has(key)) {
      this.removePost(event.id);
      return false;
    }
    this.#newest = event;
    if (event.type !== "message") {
      this.addOthers(1, [event.type], event);
      return true;
    }
    const own = this.#posts.get(event.id);
    this.#posts.delete(event.id);
    const entry = own ?? this.#new("message");
    this.#events.set(key, entry);
    this.#fill(entry, event);
    // Moved only if it has to: a screen reader reads out what is put in, again.
    const place = [...this.#posts.values()][0] ?? null;
    if (!own || (place && follows(place, own))) this.#insert(entry, place);
    else this.#arrange(entry);
    return true;
  }

  /** Adds events in front, ascending. `gap` are the numbers missing behind them, if any. */
  prepend(events, gap = null) {
    let before = this.#list.firstElementChild;
    if (gap) {
      const divider = this.#divider(gap);
      this.#insert(divider, before);
      before = divider;
    }
    for (const event of events.toReversed?.() ?? [...events].reverse()) {
      const key = `${event.epoch}:${event.seq}`;
      if (this.#events.has(key)) continue;
      if (event.type !== "message") {
        before = this.#addOthers(1, [event.type], event, before);
        continue;
      }
      if (before === this.#posts.get(event.id)) before = before.nextElementSibling;
      this.removePost(event.id);
      const entry = this.#new("message");
      this.#events.set(key, entry);
      this.#fill(entry, event);
      this.#insert(entry, before);
      before = entry;
    }
  }

  /** Shows where messages are missing. */
  addGap(gap) {
    this.#insert(this.#divider(gap), this.#endOfLog());
  }

  /** Counts events that are not messages. */
  addOthers(count, types = [], event = null) {
    this.#addOthers(count, types, event, this.#endOfLog());
  }

  /** Shows an own post, or its new state. Gives whether it is new to the list. */
  showPost(post) {
    let entry = this.#posts.get(post.id);
    const { event } = post;
    if (!entry && post.state === "sent") return false; // the stream was faster
    const added = !entry;
    if (added) {
      entry = this.#new("message");
      this.#posts.set(post.id, entry);
      this.#fill(entry, { ...post.message, at: new Date().toISOString() });
      entry.querySelector(".retry").addEventListener("click", () => {
        this.#act.retry(post.id);
        this.#posts.delete(post.id); // tried again, it comes last
        this.#posts.set(post.id, entry);
        this.#insert(entry, null);
      });
      entry.querySelector(".discard").addEventListener("click", () => {
        this.#act.discard(post.id);
        this.removePost(post.id);
        this.#act.leave();
      });
      this.#insert(entry, null);
    }
    if (event && this.#isPast(event)) {
      // It was in the log already, further up than what came since.
      this.removePost(post.id);
      return false;
    }
    this.#showState(entry, post);
    return added;
  }

  removePost(id) {
    const entry = this.#posts.get(id);
    this.#posts.delete(id);
    if (entry) this.#remove(entry);
  }

  /** Takes old entries out when there are too many. Gives whether it did. */
  trim() {
    if (this.#list.childElementCount <= MOST_ENTRIES) return false;
    for (let left = TRIM; left > 0; left--) {
      const entry = this.#list.firstElementChild;
      const { key } = this.#facts.get(entry) ?? {};
      if (key) this.#events.delete(key);
      entry.remove();
    }
    this.#arrange(this.#list.firstElementChild);
    return true;
  }

  #isPast({ epoch, seq }) {
    const newest = this.#newest;
    if (!newest || seq === undefined) return false;
    return epoch < newest.epoch || (epoch === newest.epoch && seq <= newest.seq);
  }

  #endOfLog() {
    return [...this.#posts.values()][0] ?? null;
  }

  #new(kind) {
    return this.#templates[kind].content.firstElementChild.cloneNode(true);
  }

  #divider(gap) {
    const entry = this.#new("gap");
    entry.dataset.reason = gap.reason ?? "";
    entry.querySelector("p").textContent = gapWords(gap);
    return entry;
  }

  #addOthers(count, types, event, before) {
    const previous = before ? before.previousElementSibling : this.#list.lastElementChild;
    const neighbour = [previous, before].find((entry) => entry?.classList.contains("others"));
    const entry = neighbour ?? this.#new("others");
    const facts = this.#facts.get(entry) ?? { count: 0, types: new Set() };
    facts.count += count;
    for (const type of types) facts.types.add(type);
    // The lowest number: what history is asked for goes on before it.
    if (event) facts.seq = Math.min(event.seq, facts.seq ?? event.seq);
    this.#facts.set(entry, facts);
    entry.querySelector("p").textContent = othersWords(facts.count, [...facts.types]);
    if (!neighbour) this.#insert(entry, before);
    return entry;
  }

  #fill(entry, { id, epoch, seq, at, from, text, data }) {
    const when = new Date(at);
    const sender = `${from?.id ?? ""} ${from?.name ?? ""}`;
    const key = seq === undefined ? null : `${epoch}:${seq}`;
    this.#facts.set(entry, { key, seq, at: when, sender });
    const name = from?.name || "guest";
    const own = this.#isOwn(id);
    entry.classList.toggle("own", own);
    entry.dataset.colour = colour(from?.id || name);
    entry.querySelector(".avatar").textContent = [...name][0].toUpperCase();
    entry.querySelector(".author bdi").textContent = own ? `${name} (you)` : name;
    const body = entry.querySelector(".text");
    body.replaceChildren(...withLinks(text ?? ""));
    body.hidden = text === undefined;
    const extra = entry.querySelector(".data");
    extra.hidden = data === undefined;
    extra.textContent = data === undefined ? "" : JSON.stringify(data, null, 2);
    const time = entry.querySelector("time");
    time.dateTime = at;
    entry.querySelector(".bubble").title = momentWords(when);
    time.textContent = timeWords(when);
    this.#showState(entry, own ? { state: "sent" } : null);
  }

  #showState(entry, post) {
    entry.dataset.state = post?.state ?? "";
    entry.querySelector(".state").textContent = post ? postWords(post) : "";
    const failed = post?.state === "failed";
    const box = entry.querySelector(".unsent");
    const hadFocus = box.contains(document.activeElement);
    box.hidden = !failed;
    // What is too large stays so.
    entry.querySelector(".retry").hidden = post?.problem?.status === 413;
    if (failed) entry.querySelector(".why").textContent = `Not sent: ${problemWords(post.problem)}`;
    else if (hadFocus) this.#act.leave();
  }

  #insert(entry, before) {
    const left = neighbour(entry);
    this.#list.insertBefore(entry, before);
    this.#arrange(entry);
    if (left) this.#arrange(left);
  }

  #remove(entry) {
    const left = neighbour(entry);
    entry.remove();
    if (left) this.#arrange(left);
  }

  /**
   * What a message shows depends on the one above: its day, its name, its picture; and its time on
   * the one below: of messages that stand together only the last of some minutes shows it.
   */
  #arrange(entry) {
    for (const one of [entry.previousElementSibling, entry, entry.nextElementSibling]) {
      if (!one?.classList.contains("message")) continue;
      const { previousElementSibling: above, nextElementSibling: below } = one;
      const { at } = this.#facts.get(one);
      const other = this.#message(above);
      const day = one.querySelector(".day");
      day.hidden = above !== null && (!other || sameDay(other.at, at));
      day.textContent = day.hidden ? "" : dayWords(at);
      one.classList.toggle("continued", this.#together(above, one));
      const sameTime = minutes(at) === minutes(this.#message(below)?.at);
      one.classList.toggle("followed", sameTime && this.#together(one, below));
    }
  }

  /** Whether both are messages of one sender, shortly after each other. */
  #together(above, below) {
    const [one, other] = [this.#message(above), this.#message(below)];
    if (!one || !other || one.sender !== other.sender || !sameDay(one.at, other.at)) return false;
    return other.at - one.at < TOGETHER;
  }

  /** What is known of an entry, if it is a message. */
  #message(entry) {
    return entry?.classList.contains("message") ? this.#facts.get(entry) : null;
  }
}

function sameDay(one, other) {
  return one.toDateString() === other.toDateString();
}

/** The entry beside which something changes when `entry` leaves its place. */
function neighbour(entry) {
  return entry.isConnected ? (entry.nextElementSibling ?? entry.previousElementSibling) : null;
}

/** Of every few minutes the time is shown once, however long the talk of one sender. */
function minutes(at) {
  return Math.floor(at / TOGETHER);
}

/** Whether `entry` stands behind `place` in the document. */
function follows(place, entry) {
  return Boolean(place.compareDocumentPosition(entry) & Node.DOCUMENT_POSITION_FOLLOWING);
}

/** Always the same colour for the same person. */
function colour(text) {
  let sum = 0;
  for (const character of text) sum = (sum * 31 + character.codePointAt(0)) >>> 0;
  return String(sum % COLOURS);
}
