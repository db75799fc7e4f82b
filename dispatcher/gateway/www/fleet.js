// Who works, under which rules, with which tools; and what is wrong with any of them. Of the instance that answers.
import { json, Refused, request } from "./http.js";
import { Live } from "./live.js";
import { drain } from "./stop.js";
import { clock, count, element, table, terms, visible } from "./text.js";

const LOOK_MS = 5000;

/** The samples of an exposition in Prometheus's text format: {name, labels, value}. */
function samples(text) {
  return [...text.matchAll(/^([a-z_]+)(?:\{(.*)\})? (\S+)$/gm)].map(([, name, labels = "", value]) => ({
    name,
    labels: Object.fromEntries([...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, said]) => [key, said])),
    value: Number(value),
  }));
}

async function facts(signal) {
  const text = await (await request("metrics", { signal })).text();
  const all = samples(text);
  return {
    of: (name) => all.filter((each) => each.name === name),
    sum: (name) => all.filter((each) => each.name === name).reduce((sum, { value }) => sum + value, 0),
  };
}

/** What this instance knows to be wrong, in words. */
export async function troubles(signal) {
  const [metrics, rules, ready] = await Promise.all([
    facts(signal),
    json("operator/policies", { signal }),
    request("readyz", { signal }).then(
      () => "",
      (error) => {
        if (error instanceof Refused) return error.message;
        throw error;
      },
    ),
  ]);
  const waiting = metrics.sum("dispatcher_waiting_sessions");
  const found = [ready, ...(rules.errors ?? []).map((error) => `Policies: ${error}`)];
  const when = (wrong, text) => wrong && found.push(text);
  when(!metrics.sum("dispatcher_commanders"), "No Commander is connected.");
  when(waiting && !metrics.sum("dispatcher_free_slots"), `${count(waiting)} sessions wait, and no slot is free.`);
  when(
    metrics.sum("dispatcher_ejected_commanders"),
    `Commanders that get no session, as theirs have failed: ${metrics.sum("dispatcher_ejected_commanders")}`,
  );
  for (const [name, what] of [
    ["access", "The access file is"],
    ["tool", "The tool files are"],
  ]) {
    when(
      metrics.of(`dispatcher_${name}_reload_success`).some(({ value }) => !value),
      `${what} broken; what was before holds.`,
    );
  }
  for (const { labels, value } of metrics.of("dispatcher_toolset_up"))
    when(!value, `Tools: ${labels.toolset} is not reached.`);
  for (const { labels, value } of metrics.of("dispatcher_tls_certificate_expiry_seconds")) {
    when(value < Date.now() / 1000 + 14 * 86400, `The certificate of ${labels.edge} expires at ${clock(value)}.`);
  }
  return found.filter(Boolean);
}

export async function fleet({ main, signal, page }) {
  const commanders = table("Commanders", [
    ["Drain"], // first: a telephone has no room beside a name of 32 characters
    ["Commander"],
    ["Credential"],
    ["Instance", "wide"],
    ["Sessions", "number"],
    ["Free slots", "number"],
    ["Packets/s", "number"],
    ["Agents"],
  ]);
  const names = ["Numbers", "Rules", "Tools", "What is wrong", "Holds", "Keys and limits"];
  const [numbers, rules, tools, wrong, holds, access] = names.map((name) => element("section", { ariaLabel: name }));
  const here = { commanders: [] }; // what this instance last told of itself
  main.append(
    element("h1", {}, "Fleet and rules"),
    element("p", {}, "Holds, and Commanders with sessions, are those of all instances; the rest is of the one that answers."),
    wrong,
    holds,
    numbers,
    element("h2", {}, "Commanders"),
    commanders.box,
    rules,
    tools,
    access,
  );
  asking({ numbers, rules, tools, wrong, holds, access }, here, signal, page);
  const live = new Live();
  await live.follow(signal, page.connected, (whole) => whole && working(commanders, live, here, page));
}

/** Whoever has a session, at any instance, and who is connected here. */
function working({ box, body, title }, live, here, page) {
  if (box.matches(":focus-within")) return; // a button that is pressed just now stays

  const found = new Map();
  for (const row of live.rows.values()) {
    if (row.state !== "running") continue;
    const key = JSON.stringify([row.commander_id, row.credential, row.instance]);
    const sum = found.get(key) ?? { sessions: 0, rate: 0, agents: new Set() };
    found.set(key, sum);
    sum.sessions++;
    sum.rate += row.rate;
    sum.agents.add(row.agent);
  }
  const slots = new Map();
  for (const each of here.commanders) {
    const key = JSON.stringify([each.commander_id, each.credential, here.instance]);
    if (!found.has(key)) found.set(key, { sessions: 0, rate: 0, agents: new Set(each.agents) });
    const why = ["held", "ejected", "draining"].filter((name) => each[name]);
    slots.set(key, [count(each.free), ...why].join(", "));
  }
  title.textContent = `Commanders: ${count(found.size)}`;
  body.replaceChildren(
    ...[...found].sort().map(([key, { sessions, rate, agents }]) => {
      const [commander, credential, instance] = JSON.parse(key);
      const link = element("a", { href: `#sessions?${new URLSearchParams({ q: commander })}` }, visible(commander));
      const button = element("button", { type: "button", ariaLabel: `Drain ${visible(commander)}` }, "Drain…");
      button.onclick = () => drain(page, commander, credential);
      const cells = [
        [button],
        [link],
        [visible(credential)],
        [instance, "wide"],
        [count(sessions), "number"],
        [slots.get(key) ?? (instance === here.instance ? "not connected" : "elsewhere"), "number"],
        [rate.toFixed(0), "number"],
        [visible([...agents].sort().join(", "))],
      ];
      return element("tr", {}, ...cells.map(([said, className = ""]) => element("td", { className }, said)));
    }),
  );
}

async function asking(sections, here, signal, page) {
  while (!signal.aborted) {
    await page.tried(
      async () => {
        const [metrics, rules, found, { holds }, instance] = await Promise.all([
          facts(signal),
          json("operator/policies", { signal }),
          troubles(signal),
          json("operator/holds", { signal }),
          json("operator/instance", { signal }),
        ]);
        Object.assign(here, instance);
        permitted(sections.access, instance.access);
        show(sections, metrics, rules, found, instance.tools);
        held(sections.holds, holds, page);
      },
      { asked: true },
    );
    await new Promise((done) => setTimeout(done, LOOK_MS));
  }
}

/** Who may come, and how much of it; never what is secret. access: null where whoever comes may. */
function permitted(section, access) {
  const shown = JSON.stringify(access);
  if (section.dataset.shown === shown) return; // who scrolls in it just now stays there
  const rows = (caption, columns, all) => {
    const made = table(caption, columns);
    const cell = (said) => element("td", {}, visible(String(said ?? "")));
    made.body.append(...all.map((each) => element("tr", {}, ...each.map(cell))));
    return made.box;
  };
  const agents = (names) => names?.join(", ") ?? "all";
  const tables = access && [
    rows(
      "Keys",
      [["Name"], ["Role"], ["Tenant"], ["Agents"], ["Expires"]],
      access.keys.map((key) => [
        key.name,
        key.role,
        key.tenant,
        agents(key.agents),
        key.expires_at === null ? "never" : clock(key.expires_at),
      ]),
    ),
    rows(
      "Certificates and issuers",
      [["Whose"], ["Role"], ["Tenant"], ["Agents"]],
      [
        ...access.certificates.map(({ san, role, agents: names }) => [san, role, "", agents(names)]),
        ...access.issuers.map(({ issuer, role, tenant, agents: names }) => [issuer, role, tenant, agents(names)]),
      ],
    ),
    rows(
      "Limits",
      [["Tenant"], ["Sessions at once"], ["Sessions a minute"], ["Tokens a day"]],
      access.limits.map((limit) => [
        limit.tenant,
        limit.sessions_at_once ?? "any",
        limit.sessions_per_minute ?? "any",
        limit.tokens_per_day ?? "any",
      ]),
    ),
  ];
  section.dataset.shown = shown;
  section.replaceChildren(
    element("h2", {}, "Keys and limits"),
    ...(tables ?? [element("p", {}, "None: whoever reaches this instance may use it.")]),
  );
}

/** What is refused for a while, and a way to end that. */
function held(section, holds, page) {
  const shown = JSON.stringify(holds);
  if (section.dataset.shown === shown) return; // a button that is pressed just now stays
  section.dataset.shown = shown;
  section.replaceChildren(
    ...(holds.length ? [element("h2", {}, "Held: new ones like these are refused, a Commander gets none")] : []),
    ...holds.map((hold) => {
      const lift = () =>
        page.tried(async () => {
          await request(`operator/holds/${encodeURIComponent(hold.hold_id)}`, { method: "DELETE" });
          page.say("The hold is lifted.");
          item.remove();
        });
      const item = element(
        "div",
        {},
        terms([
          ["Agent", hold.agent],
          ["Tenant", hold.tenant],
          ["Conversation", hold.conversation_id],
          ["Commander", hold.commander],
          ["Credential", hold.credential],
          ["Until", clock(hold.ends_at)],
          ["Reason", hold.reason],
          ["Detail", hold.detail],
        ]),
        element("button", { type: "button", onclick: lift }, "Lift it"),
      );
      return item;
    }),
  );
}

function show(sections, metrics, rules, found, tools) {
  const some = (name) => metrics.of(name).filter(({ value }) => value);
  const counted = (name, label, fits = () => true) =>
    some(name)
      .filter(fits)
      .map(({ labels, value }) => `${labels[label]} ${count(value)}`)
      .join(", ") || "none";
  const heading = (text) => element("h2", {}, text);
  const list = (items) => element("ul", {}, ...items.map((text) => element("li", {}, visible(text))));
  sections.wrong.replaceChildren(
    ...(found.length ? [heading("What is wrong here"), list(found)] : [heading("Nothing is known to be wrong here")]),
  );
  sections.wrong.className = found.length ? "wrong" : "";
  sections.numbers.replaceChildren(
    heading("This instance"),
    terms([
      ["Commanders", count(metrics.sum("dispatcher_commanders"))],
      ["Free slots", count(metrics.sum("dispatcher_free_slots"))],
      ["Waiting, of the whole store", count(metrics.sum("dispatcher_waiting_sessions"))],
      ["Sessions that ended", counted("dispatcher_sessions_total", "outcome")],
      ["Stops", counted("dispatcher_stops_total", "reason")],
      ["Logged after a stop", count(metrics.sum("dispatcher_deltas_after_stop_total"))],
      ["Characters held back", count(metrics.sum("dispatcher_held_characters"))],
      ["Requests refused", count(metrics.sum("dispatcher_refusals_total"))],
    ]),
  );
  const hits = (name) => counted("dispatcher_policy_hits_total", "action", ({ labels }) => labels.policy === name);
  const policies = table("Rules in force", [["Rule"], ["Kind"], ["Action"], ["Hits"]]);
  policies.body.append(
    ...(rules.policies ?? []).map((rule) =>
      element(
        "tr",
        {},
        ...[rule.name, rule.kind, rule.action ?? "", hits(rule.name)].map((said) =>
          element("td", {}, visible(String(said))),
        ),
      ),
    ),
  );
  sections.rules.replaceChildren(
    heading("Rules"),
    terms([
      ["From", rules.source ?? "the built-in budget"],
      ["Read", rules.loaded_at ? clock(rules.loaded_at) : ""],
    ]),
    policies.box,
  );
  const calls = table("Tools and their calls", [["Tool"], ["Now"], ["Calls"]]);
  const called = (name) => counted("dispatcher_tool_calls_total", "status", ({ labels }) => labels.tool === name);
  const names = new Set([...Object.keys(tools), ...some("dispatcher_tool_calls_total").map(({ labels }) => labels.tool)]);
  for (const name of names) {
    const now = Object.hasOwn(tools, name) ? (tools[name] ? "up" : "not reached") : "no such tool";
    calls.body.append(element("tr", {}, ...[name, now, called(name)].map((said) => element("td", {}, visible(said)))));
  }
  const sets = metrics
    .of("dispatcher_toolset_up")
    .map(({ labels, value }) => `${labels.toolset}: ${value ? "up" : "not reached"}`);
  sections.tools.replaceChildren(heading("Tools"), list(sets), calls.box);
}
