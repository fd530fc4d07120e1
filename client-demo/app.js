import { ChatClient, randomUuid, timeUuid } from "./chat-client.js";
import { copyText } from "./clipboard.js";
import { setUpComposer } from "./composer.js";
import { Earlier } from "./earlier.js";
import { MessageList } from "./message-list.js";
import { OwnPosts, browserStorage } from "./own-posts.js";
import { ScrollKeeper } from "./scroll-keeper.js";
import { Person, addressOf, channelFromAddress, draftOf, loadServices } from "./settings.js";
import { statusWords } from "./words.js";

const $ = (id) => document.getElementById(id);

const person = new Person();
const ownPosts = new OwnPosts(browserStorage());
const channel = channelFromAddress();
setUpHeader();
if (channel) start(channel, await loadServices());
else {
  showStatus({ state: "refused", problem: { detail: notAChannel() } });
  // What cannot be sent need not be written.
  for (const field of $("composer").elements) field.disabled = true;
}

function start(channel, services) {
  let complete = false;
  const client = new ChatClient({ ...services, channels: [channel] });
  const messages = new MessageList({
    list: $("messages"),
    templates: {
      message: $("message-template"),
      gap: $("gap-template"),
      others: $("others-template"),
    },
    isOwn: (id) => ownPosts.has(id),
    act: {
      retry: (id) => client.retry(id),
      discard: (id) => client.discard(id),
      leave: () => $("text").focus(),
    },
  });
  const scroll = new ScrollKeeper({
    box: $("log"),
    content: $("messages"),
    button: $("newer"),
    label: $("newer-text"),
  });
  const earlier = new Earlier({
    box: $("log"),
    mark: $("earlier"),
    button: $("earlier-button"),
    note: $("earlier-note"),
    load: async (limit) => {
      const before = messages.oldest ?? undefined;
      const page = await client.history(channel, { before, limit });
      // Over a page that was put in front, a screen reader should not read all of it out.
      $("log").setAttribute("aria-busy", "true");
      scroll.keep(() => messages.prepend(page.messages, missing(page.messages, before)));
      $("log").setAttribute("aria-busy", "false");
      showEmpty();
      const oldest = messages.oldest;
      const more = page.messages.length > 0 && oldest > Math.max(page.first, 1);
      return { first: oldest ?? page.head + 1, more };
    },
  });

  client.addEventListener("status", ({ detail }) => {
    showStatus(detail);
    if (detail.state === "live") showAll();
  });
  client.addEventListener("read", showAll);
  client.addEventListener("event", ({ detail: { event } }) => {
    if (!messages.append(event)) return;
    scroll.added({ counts: event.type === "message" });
    if (scroll.follows && messages.trim()) earlier.reopen();
    if (complete && !ownPosts.has(event.id) && event.type === "message") countUnread();
    showEmpty();
  });
  client.addEventListener("gap", ({ detail }) => {
    messages.addGap(detail);
    scroll.added({ counts: false });
    showEmpty();
  });
  client.addEventListener("skipped", ({ detail }) => {
    messages.addOthers(detail.to - detail.from + 1);
    scroll.added({ counts: false });
  });
  client.addEventListener("post", ({ detail: { post } }) => {
    if (messages.showPost(post)) scroll.toEnd();
    else scroll.added({ counts: false });
    if (post.state === "failed") toast("A message was not sent.");
    showEmpty();
  });

  setUpComposer({
    form: $("composer"),
    text: $("text"),
    draft: draftOf(channel),
    send: (text) => {
      try {
        const id = timeUuid();
        ownPosts.add(id); // before it is shown
        client.post(channel, { id, text, from: person.toSender() });
        return true;
      } catch (error) {
        toast(`Please wait: ${error.message}.`);
        return false;
      }
    },
  });
  for (const post of client.unsent(channel)) messages.showPost(post);
  showCurl(client.address(channel));
  client.connect();

  /** All that there was when the page came has come. */
  function showAll() {
    complete = true;
    $("log").setAttribute("aria-busy", "false");
    showEmpty();
    earlier.start();
  }

  function showEmpty() {
    $("empty").hidden = !(messages.empty && complete);
  }
}

/** The numbers between a page of history and what it was asked for: they expired meanwhile. */
function missing(events, before) {
  const last = events.at(-1)?.seq;
  if (before === undefined || last === undefined || last === before - 1) return null;
  return { from: last + 1, to: before - 1, reason: "retention" };
}

function setUpHeader() {
  $("channel").textContent = channel ?? "";
  $("name").value = person.name;
  $("name").addEventListener("change", () => (person.name = $("name").value));
  $("name").addEventListener("input", () => (person.name = $("name").value));
  $("new-channel").addEventListener("click", () => location.assign(addressOf(randomUuid())));
  $("copy-link").disabled = channel === null;
  $("copy-link").addEventListener("click", async () => {
    const link = addressOf(channel);
    if (await copyText(link)) return toast("The link is copied.");
    $("link").value = link;
    $("link-dialog").showModal();
    $("link").select();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) document.title = "Hark";
  });
  // On a phone the keyboard would cover the page at once.
  if (matchMedia("(hover: hover)").matches) $("text").focus();
}

/** The line may be broken behind a slash; what is copied has no breaks. */
function showCurl(address) {
  const parts = `curl -d hello ${address}`.match(/[^/]*\/*/g);
  $("curl").replaceChildren(...parts.flatMap((part) => [part, document.createElement("wbr")]));
}

function showStatus(status) {
  const { short, long = "" } = statusWords(status);
  $("status").dataset.state = status.state;
  // Setting the same words again would make a screen reader repeat them.
  if ($("status-text").textContent !== short) $("status-text").textContent = short;
  if ($("notice").textContent !== long) $("notice").textContent = long;
  $("notice").hidden = long === "";
}

let unread = 0;

function countUnread() {
  unread = document.hidden ? unread + 1 : 0;
  if (unread) document.title = `(${unread}) Hark`;
}

let toastTimer;

function toast(words) {
  clearTimeout(toastTimer);
  $("toast").textContent = words;
  toastTimer = setTimeout(() => ($("toast").textContent = ""), 4_000);
}

function notAChannel() {
  return "The address has no channel that could exist: after “c=” there must be a UUID. “New channel” makes one.";
}
