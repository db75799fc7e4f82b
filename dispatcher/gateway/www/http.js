// Requests that show the key that was given, and event streams that come back where they were.

const RETRY_MS = 1000; // as the server's `retry:` says
const SILENCE_MS = 45_000; // three comments of the server's: the connection is dead
const TURN_MS = 10; // of work on events that came at once, before the page may draw and take keys

/** An answer that is an error. code: the server's; message: for people. */
export class Refused extends Error {
  constructor(status, { code, message }) {
    super(message);
    Object.assign(this, { status, code });
  }
}

/** Nobody answers, or the answer broke off. */
export class Unreachable extends Error {}

function unreachable(error) {
  if (error.name === "AbortError") throw error;
  throw new Unreachable("The server does not answer.");
}

/** The key is kept until this tab is closed. */
export const useKey = (key) => sessionStorage.setItem("key", key.trim());

/** body: sent as JSON. Throws Refused and Unreachable. */
export async function request(path, { body, headers = {}, ...options } = {}) {
  const key = sessionStorage.getItem("key");
  if (key) headers = { ...headers, authorization: `Bearer ${key}` };
  if (body !== undefined) {
    headers = { ...headers, "content-type": "application/json" };
    options = { method: "POST", ...options, body: JSON.stringify(body) };
  }
  const answer = await fetch(path, { ...options, headers, cache: "no-store" }).catch(unreachable);
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null); // whoever stands before the server answers in his own way
  throw new Refused(answer.status, told?.error ?? { message: `The server answered ${answer.status}.` });
}

export const json = async (path, options) => (await request(path, options)).json();

/**
 * The events of a stream after that id, as {name, id, data}, over as many connections as it takes, until the server
 * says that it was the last (204) or the signal is given. An EventSource does the same, but can show no key.
 * connected: told of each change between true and false, with the error.
 */
export async function* events(path, { signal, after = "0", connected = () => {} }) {
  while (!signal.aborted) {
    try {
      const headers = { accept: "text/event-stream", "last-event-id": after };
      const answer = await request(path, { headers, signal });
      if (answer.status === 204) return;
      connected(true);
      for await (const event of frames(answer.body)) {
        if (event.id) after = event.id;
        yield event;
      }
    } catch (error) {
      if (signal.aborted) return;
      const passes = error instanceof Unreachable || error.status >= 500 || error.status === 429;
      if (!passes) throw error;
      connected(false, error);
    }
    await new Promise((done) => setTimeout(done, RETRY_MS));
  }
}

/** The events of an answer's body, to its end. Throws Unreachable where it breaks off, or falls silent. */
export async function* frames(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let text = ""; ;) {
      const { value, done } = await within(SILENCE_MS, reader.read()).catch(unreachable);
      if (done) return;
      const parts = (text + value).split("\n\n");
      text = parts.pop();
      let began = performance.now();
      for (const part of parts) {
        const fields = Object.fromEntries(part.split("\n").map((line) => line.split(/: (.*)/s, 2)));
        if (fields.data) yield { name: fields.event, id: fields.id, data: JSON.parse(fields.data) };
        if (performance.now() - began > TURN_MS) began = await turn();
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have broken
  }
}

/** When the page has had its turn. A timer of a tab that is not seen would take a second. */
async function turn() {
  const { port1, port2 } = new MessageChannel();
  await new Promise((done) => ((port1.onmessage = done), port2.postMessage(0)));
  port1.close();
  return performance.now();
}

async function within(ms, promise) {
  let timer;
  const late = new Promise((_, fail) => (timer = setTimeout(() => fail(new Error("The line is silent.")), ms)));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
