import { isUuid, randomUuid } from "./chat-client.js";

/** Where the services are: `config.json`, or the page's own host with the usual ports. */
export async function loadServices() {
  let config = {};
  try {
    const response = await fetch("config.json", { cache: "no-store" });
    if (response.ok) config = await response.json();
  } catch {
    // No such file, or not JSON: the defaults.
  }
  return services(config, location);
}

/** Relative addresses are taken from the page's: `"./"` fits behind a proxy, under any path. */
export function services(config, { protocol, hostname, href }) {
  const own = (port) => `${protocol === "https:" ? "https:" : "http:"}//${hostname}:${port}/`;
  return {
    chat: new URL(config?.chat || own(8080), href).href,
    sse: new URL(config?.sse || own(8081), href).href,
  };
}

/** The channel in the page's address; if there is none, a new one is put there. `null`: no UUID. */
export function channelFromAddress() {
  const address = new URL(location.href);
  const asked = address.searchParams.get("c");
  if (asked) return isUuid(asked.trim()) ? asked.trim().toLowerCase() : null;
  const channel = randomUuid();
  history.replaceState(null, "", addressOf(channel));
  return channel;
}

export function addressOf(channel) {
  const address = new URL(location.href);
  address.search = `?c=${channel}`;
  address.hash = "";
  return address.href;
}

/** Who sits here: an id, so that own messages are known after a reload, and a name to show. */
export class Person {
  #name;

  constructor() {
    this.id = read("hark-id");
    if (!isUuid(this.id)) write("hark-id", (this.id = randomUuid()));
    this.#name = read("hark-name") ?? "";
  }

  get name() {
    return this.#name;
  }

  set name(name) {
    this.#name = name.trim();
    write("hark-name", this.#name);
  }

  /** The `from` of a message. */
  toSender() {
    return this.#name ? { id: this.id, name: this.#name } : { id: this.id };
  }
}

/** What was written in a channel and not sent, kept by this tab. */
export function draftOf(channel) {
  const key = `hark-draft ${channel}`;
  return {
    read() {
      try {
        return sessionStorage.getItem(key) ?? "";
      } catch {
        return "";
      }
    },
    write(text) {
      try {
        if (text) sessionStorage.setItem(key, text);
        else sessionStorage.removeItem(key);
      } catch {
        return;
      }
    },
  };
}

// Where cookies are forbidden, so is storage; the page then forgets, and works all the same.
function read(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    return;
  }
}
