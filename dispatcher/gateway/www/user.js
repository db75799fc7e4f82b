// Asks an agent, shows its words as they come, and stops it: the users' routes, as docs/clients.md has them.
import { events, json, Refused, request, Unreachable, useKey } from "./http.js";
import { element, visible } from "./text.js";

const [keys, ask, agent, stop, state, approvals, answer] = [
  "key",
  "ask",
  "agent",
  "stop",
  "state",
  "approvals",
  "answer",
].map((id) => document.getElementById(id));
const STATES = { finished: "Finished", stopped: "Stopped", failed: "Failed" };
let reading = new AbortController(); // what is shown

async function offer() {
  const { data } = await json("v1/models");
  agent.replaceChildren(...data.map(({ id }) => new Option(id, id)));
  state.textContent = data.length ? "" : "No agent is here yet.";
}

async function read(session) {
  reading.abort();
  const { signal } = (reading = new AbortController());
  const path = `v1/sessions/${session.session_id}`;
  const connected = (yes) => (state.textContent = yes ? "Answering." : "The connection is lost. Trying again.");
  answer.textContent = "";
  answer.ariaBusy = "true";
  stop.disabled = false;
  stop.onclick = () => tried(() => request(`${path}/stop`, { method: "POST" }));
  try {
    for await (const { name, data } of events(`${path}/events`, { signal, connected })) {
      if (name === "content") answer.append(data.text);
      if (name === "reset") answer.textContent = data.text;
      if (name === "approval" && data.arguments) approvals.append(question(path, data));
      if (name === "tool_call") state.textContent = `Using ${data.tool_name}.`;
      if (name === "tool_result") state.textContent = "Answering.";
      if (name === "tool_result") document.getElementById(`call-${data.call_id}`)?.remove();
      if (!(name in STATES)) continue;
      state.textContent = [STATES[name], data.reason ?? data.message].filter(Boolean).join(": ");
      break;
    }
  } finally {
    approvals.replaceChildren();
    if (reading.signal === signal) {
      answer.ariaBusy = "false";
      stop.disabled = true;
    }
  }
}

/** A call that its user has to approve, and the hash that binds the decision to these arguments. */
function question(path, { call_id, tool_name, arguments: given, arguments_sha256 }) {
  const asked = element("fieldset", { id: `call-${call_id}` }, element("legend", {}, `May it use ${tool_name}?`));
  const shown = element("pre", { tabIndex: 0 }, visible(JSON.stringify(given, null, 1)));
  const buttons = ["Approve", "Deny"].map((word) => {
    const body = { decision: word.toLowerCase(), arguments_sha256 };
    const decide = async () => (await request(`${path}/calls/${call_id}/decision`, { body }), asked.remove());
    return element("button", { type: "button", onclick: () => tried(decide) }, word);
  });
  asked.append(shown, ...buttons);
  return asked;
}

/** What goes wrong is said; where a key is what is missing, it is asked for. */
async function tried(work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
    state.textContent = error.message;
    if (error.status === 401) keys.hidden = false;
  }
}

ask.onsubmit = (event) => {
  event.preventDefault();
  const body = Object.fromEntries(new FormData(ask));
  tried(async () => read(await json("v1/sessions", { body })));
};
ask.prompt.onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask.requestSubmit();
};
keys.onsubmit = (event) => {
  event.preventDefault();
  useKey(keys.key.value);
  keys.hidden = true;
  keys.reset();
  tried(offer);
};
tried(offer);
