/**
 * UUIDs without `crypto.randomUUID`, which a page opened over plain http from another machine
 * does not have (it is not a secure context). `crypto.getRandomValues` is there everywhere.
 */

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Whether `text` is a UUID in its 36-character form, of any version, in any case. */
export function isUuid(text) {
  return typeof text === "string" && UUID.test(text);
}

/** A random UUID (RFC 9562 version 4): the name of a new channel, or of a person. */
export function randomUuid() {
  return format(randomBytes(), 4);
}

let lastTime = 0;
let counter = 0;

/**
 * A UUID that begins with the time (RFC 9562 version 7), for a message.
 *
 * Those made by one page sort in the order of their making, also within one millisecond and when
 * the clock is set back: the 12 bits after the time count (section 6.2, method 1).
 */
export function timeUuid(now = Date.now()) {
  if (now > lastTime) {
    lastTime = now;
    counter = randomBytes()[0]; // 0 to 255 of 4,095: room for at least 3,840 in a millisecond
  } else if (++counter > 0xfff) {
    lastTime += 1;
    counter = 0;
  }
  const bytes = randomBytes();
  for (let place = 0, time = lastTime; place < 6; place++) {
    bytes[5 - place] = time % 256;
    time = Math.floor(time / 256); // 48 bits: too wide for JavaScript's shifts
  }
  bytes[6] = counter >> 8;
  bytes[7] = counter & 0xff;
  return format(bytes, 7);
}

function randomBytes() {
  return crypto.getRandomValues(new Uint8Array(16));
}

function format(bytes, version) {
  bytes[6] = (bytes[6] & 0x0f) | (version << 4);
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
