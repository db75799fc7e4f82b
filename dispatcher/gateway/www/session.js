// One session: what its user got beside what the model wrote, every entry of its log as it comes, and the proof.
import { Account } from "./account.js";
import { Waiting } from "./approvals.js";
import { events, json } from "./http.js";
import { stopOne } from "./stop.js";
import { clock, count, element, lasted, STILL, table, terms, visible } from "./text.js";

const ROWS = 200; // entries that are shown at once
const SHOWN = 20_000; // UTF-16 units of a text that are shown, its end
const DRAW_MS = 100; // at least, between changes of what is shown
const MOST_MS = 5000; // that a replay stands still
const TAGS = { out: "span", not: "del", put: "ins", held: "mark", step: "strong" };
const COLUMNS = [["Entry", "number"], ["Seconds", "number"], ["Kind"], ["What", "what"]];

export async function session({ main, id, signal, page }) {
  const head = element("div");
  const stop = element("button", { type: "button", onclick: () => stopOne(page, id) }, "Stop…");
  const again = element("button", { type: "button", disabled: true, onclick: () => page.tried(replay) }, "Replay");
  const pace = element(
    "select",
    { ariaLabel: "Pace" },
    ...[1, 10, 100].map((times) => new Option(`${times} ×`, times)),
  );
  const proof = element("section", { ariaLabel: "Proof" });
  const approvals = element("ul", { ariaLabel: "Calls to be approved" });
  const waiting = new Waiting(approvals, page);
  const got = text("What the user got"),
    wrote = text("What the model wrote"),
    thought = text("What it thought, by step");
  const { box, body, title } = table("Log", COLUMNS);
  const follows = element("input", { type: "checkbox", checked: true });
  main.append(
    element("h1", {}, `Session ${visible(id)}`),
    head,
    element("p", {}, stop, again, pace),
    proof,
    approvals,
    element("div", { className: "beside" }, got.section, wrote.section),
    element(
      "p",
      {},
      element("del", {}, "not let out"),
      " ",
      element("ins", {}, "put in its place"),
      " ",
      element("mark", {}, "held back; after a stop, never let out"),
    ),
    thought.section,
    element("h2", {}, "Log"),
    element(
      "p",
      {},
      ...[
        ["First", () => 0],
        ["Earlier", (n) => n - ROWS],
        ["Later", (n) => n + ROWS],
        ["Newest", () => Infinity],
      ].map(([name, to]) => element("button", { type: "button", onclick: () => turn(to) }, name)),
      element("label", {}, follows, " follow the newest"),
    ),
    box,
  );

  const path = `operator/sessions/${encodeURIComponent(id)}`;
  let account = new Account();
  let from = 0;
  let rows = "";
  let due = 0;
  let pause = DRAW_MS;
  let record = {};

  const turn = (to) => {
    from = Math.max(0, Math.min(to(from), account.entries.length - ROWS));
    follows.checked = to(0) === Infinity;
    draw();
  };
  /** still: the rows are left where they are while somebody is among them. */
  const draw = (still = false) => {
    const began = performance.now();
    due = 0;
    if (follows.checked) from = Math.max(0, account.entries.length - ROWS);
    const entries = account.entries.slice(from, from + ROWS);
    still &&= body.matches(":hover, :focus-within");
    if (!still) {
      body.replaceChildren(...entries.map((entry) => line(entry)));
      rows = `${count(entries.length && from + 1)} to ${count(from + entries.length)}`;
    }
    title.textContent = `${count(account.entries.length)} entries: ${rows}${still ? STILL : ""}`;
    const { session_id, agent } = record;
    const calls = [...account.approvals.values()].map((call) => ({ ...call, session_id, agent }));
    waiting.show(again.disabled && record.ended_at ? [] : calls); // of a replay nothing waits
    got.show(account.wrote.filter(([kind]) => kind !== "not"));
    thought.section.hidden = !account.thoughts.length;
    thought.show(account.thoughts.flatMap(([step, said]) => [["step", `${step}\n`], ["out", `${said}\n`]]));
    wrote.show([...account.wrote.filter(([kind]) => kind !== "put"), ["held", account.held]]);
    pause = Math.max(DRAW_MS, 5 * (performance.now() - began)); // a fast log leaves time for the keyboard
  };
  const soon = () => (due ||= setTimeout(draw, pause, true));
  const line = ({ offset, at, kind, text: said, size }) => {
    const what = element("td", { className: "what" }, visible(said));
    const whole = () => page.tried(async () => what.replaceChildren(visible(await entry(path, offset, signal))));
    if (size > said.length) what.append(`… (${count(size)} characters)`);
    const number = element(
      "button",
      { type: "button", ariaLabel: `Entry ${offset}, with all its fields`, onclick: whole },
      String(offset),
    );
    const cells = [number, (at - record.created_at).toFixed(3), kind];
    return element("tr", {}, ...cells.map((each, n) => element("td", { className: COLUMNS[n][1] ?? "" }, each)), what);
  };
  const look = async () => {
    record = await json(path, { signal });
    stop.disabled = Boolean(record.ended_at);
    head.replaceChildren(summary(record));
  };

  /** The log once more, as it came. */
  const replay = async () => {
    again.disabled = true;
    account = new Account();
    let at;
    for await (const event of events(`${path}/events`, { signal })) {
      const waits = Math.min(MOST_MS, ((event.data.at - (at ?? event.data.at)) * 1000) / pace.value);
      at = event.data.at;
      if (waits > 1) await new Promise((done) => setTimeout(done, waits));
      account.take(event);
      soon();
    }
    again.disabled = false;
  };

  await look();
  for await (const event of events(`${path}/events`, { signal, connected: page.connected })) {
    if (event.name === "reset") return session({ main: cleared(main), id, signal, page }); // the log was rolled back
    account.take(event);
    if (["assigned", "stop", "stopped", "finished", "failed", "agent_error"].includes(event.name)) page.tried(look);
    soon();
  }
  if (signal.aborted) return undefined;
  draw();
  await look();
  again.disabled = false;
  return proven(proof, path, signal, page);
}

const cleared = (main) => (main.replaceChildren(), main);

const summary = (record) =>
  terms([
    ["State", record.reason || record.code ? `${record.state}: ${record.reason || record.code}` : record.state],
    ["Agent", record.agent],
    ["Tenant", record.tenant],
    ["Subject", record.subject],
    ["Conversation", record.conversation_id],
    ["Began", clock(record.created_at)],
    ["Lasted", record.ended_at ? lasted(record.ended_at - record.created_at) : ""],
    ["Commander", record.commander_id],
    ["Credential", record.credential],
    ["Instance", record.instance],
    ["Takeovers", record.takeovers || ""],
    ["Asked", asked(record)],
  ]);

function asked({ messages, parameters_json }) {
  const said = messages.map(
    ({ role, content, ...more }) => `${role}: ${content}${Object.keys(more).length ? `\n${JSON.stringify(more)}` : ""}`,
  );
  const all = [...said, parameters_json].filter(Boolean).join("\n");
  const shown = element("pre", { tabIndex: 0, ariaLabel: "What was asked", role: "region" });
  const heading = element("summary", {}, `messages: ${count(messages.length)}, characters: ${count(all.length)}`);
  const made = element("details", {}, heading, shown);
  made.ontoggle = () => (shown.textContent = made.open ? visible(all) : ""); // which may be megabytes
  return made;
}

/** A text that is shown from its end, or whole for who asks. */
function text(heading) {
  const shown = element("div", { className: "text", tabIndex: 0, role: "region", ariaLabel: heading });
  const all = element("button", { type: "button", hidden: true });
  let spans = [];
  let most = SHOWN;
  const show = (given) => {
    spans = given;
    const size = spans.reduce((sum, [, said]) => sum + said.length, 0);
    const tail = [];
    for (let room = most, n = spans.length - 1; n >= 0 && room > 0; room -= spans[n--][1].length) {
      const [kind, said, rules] = spans[n];
      const span = element(TAGS[kind], {}, visible(said.slice(-room)));
      if (rules) span.dataset.rules = visible(rules); // which the style shows beside it: no part of the text
      tail.unshift(span);
    }
    const atEnd = shown.scrollHeight - shown.scrollTop - shown.clientHeight < 30;
    shown.replaceChildren(...tail);
    if (atEnd) shown.scrollTop = shown.scrollHeight;
    all.hidden = size <= most;
    all.textContent = `Show all ${count(size)} characters`;
  };
  all.onclick = () => ((most = Infinity), show(spans));
  return { section: element("div", {}, element("h2", {}, heading), shown, all), show };
}

/** An entry with all its fields, which are not kept. */
async function entry(path, offset, signal) {
  for await (const { data } of events(`${path}/events`, { signal, after: String(offset - 1) }))
    return JSON.stringify(data, null, 1);
  return "It is gone.";
}

/** The receipt of a session that is over: who ended it, how fast, and what its user had got. */
async function proven(proof, path, signal, page) {
  const receipt = await json(`${path}/receipt`, { signal });
  const { end, stop, delivered, log, signature } = receipt;
  const after = (at) => (stop && at ? `${count(at - stop.detected)} µs after it was detected` : "");
  const save = () => {
    const file = new Blob([JSON.stringify(receipt)], { type: "application/json" });
    const link = element("a", { href: URL.createObjectURL(file), download: `receipt-${receipt.session_id}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // once it is written
    page.say("Check it with: dispatcher receipt verify FILE");
  };
  proof.replaceChildren(
    element("h2", {}, "Proof"),
    terms([
      ["Ended by", [end.author, end.reason, end.policy && `rule ${end.policy}`, end.detail].filter(Boolean).join(", ")],
      ["At", `character ${count(end.character)}, entry ${count(end.entry)}, ${clock(end.at / 1e6)}`],
      ["Logged", after(stop?.logged)],
      ["Sent", after(stop?.sent)],
      ["Halted", after(stop?.halted)],
      ["Halt", stop ? `${stop.halt}; tokens after the stop: ${count(stop.tokens_after)}` : ""],
      ["The user had got", `${count(delivered.characters)} characters, SHA-256 ${delivered.sha256}`],
      ["Log", `${count(log.entries)} entries, chain ${log.sha256}`],
      [
        "Signature",
        signature ? `${signature.algorithm}, key ${signature.public_key}` : "none (DISPATCHER_RECEIPT_KEY)",
      ],
    ]),
    element("p", {}, element("button", { type: "button", onclick: save }, "Save the receipt")),
  );
}
