// Stops one session, or all that fit, or gives a Commander no more; with a reason, once it was confirmed.
import { frames, json, request } from "./http.js";
import { count, element, visible } from "./text.js";

const REASONS = ["RiskControl", "PolicyViolation", "UserCancel", "Timeout", "Shutdown"];
const FIELDS = [
  ["agent", "Agent"],
  ["tenant", "Tenant"],
  ["conversation_id", "Conversation"],
  ["commander", "Commander"],
  ["credential", "Its credential"],
];

export const stopOne = (page, id) =>
  asked(`Stop session ${visible(id)}?`, [], async ({ reason, detail }, dialog) => {
    const stopped = await json(`operator/sessions/${encodeURIComponent(id)}/stop`, { body: { reason, detail } });
    const link = element("a", { href: `#session/${encodeURIComponent(id)}` }, "the session and its proof");
    page.say(`The stop is logged: ${stopped.state}. See `, link);
    dialog.close();
  });

export function stopMany(page) {
  const fields = FIELDS.map(([name, label]) =>
    element("label", {}, `${label} `, element("input", { name, autocomplete: "off" })),
  );
  const hold = element("input", { name: "hold_seconds", type: "number", min: 0, max: 86400, step: 1, value: 0 });
  const all = element("label", {}, element("input", { name: "all", type: "checkbox" }), " every session there is");
  const bar = element("progress", { value: 0, hidden: true, ariaLabel: "Halted" });
  const said = element("p", { role: "status" });
  const more = [
    element("p", {}, "All sessions that have all of these, also those that wait, at all instances:"),
    ...fields,
    all,
    element("label", {}, "Refuse new ones like them for (seconds) ", hold),
  ];
  asked("Stop many sessions?", [...more, bar, said], async (given, dialog) => {
    const body = Object.fromEntries(Object.entries(given).filter(([, value]) => value));
    if (body.all) body.all = true;
    body.hold_seconds = Number(given.hold_seconds);
    const answer = await request("operator/stop", { body });
    bar.hidden = false;
    for await (const { name, data } of frames(answer.body)) {
      if (!["progress", "done"].includes(name)) continue;
      bar.max = data.found || 1;
      bar.value = data.found - data.running;
      said.textContent = `${count(data.found)} found, ${count(data.running)} running`;
      if (name === "done") said.textContent += data.whole ? ". That was all." : ". It took too long: look again.";
    }
    dialog.querySelector("[value=cancel]").textContent = "Close";
    page.say(said.textContent);
  });
}

/** credential: which of those that call themselves so; empty: none was shown. */
export function drain(page, commander, credential) {
  const hold = element("input", { name: "hold_seconds", type: "number", min: 1, max: 86400, step: 1, value: 3600 });
  const more = [
    element("p", {}, "What it has goes on; it gets no other, at no instance."),
    element("label", {}, "For (seconds) ", hold),
  ];
  const work = async ({ hold_seconds, reason, detail }, dialog) => {
    const body = { commander, hold_seconds: Number(hold_seconds), reason, detail };
    if (credential) body.credential = credential;
    await json("operator/holds", { body });
    page.say(`${visible(commander)} gets no session any more. Its hold can be lifted here.`);
    dialog.close();
  };
  asked(`Drain ${visible(commander)}?`, more, work, "Drain");
}

/** A dialog with a reason. work: what is done once it was confirmed; what goes wrong is said in the dialog. */
function asked(title, more, work, verb = "Stop") {
  const reason = element("select", { name: "reason" }, ...REASONS.map((each) => new Option(each, each)));
  const cancel = element("button", { type: "button", value: "cancel" }, "Cancel");
  const go = element("button", {}, verb);
  const wrong = element("p", { role: "alert" });
  const form = element(
    "form",
    {},
    ...more,
    element("label", {}, "Reason ", reason),
    element("label", {}, "Detail, for other operators ", element("input", { name: "detail", autocomplete: "off" })),
    wrong,
    go,
    cancel,
  );
  const heading = element("h2", { id: "asked" }, title);
  const dialog = element("dialog", {}, heading, form);
  dialog.setAttribute("aria-labelledby", heading.id);
  cancel.onclick = () => dialog.close();
  dialog.onclose = () => dialog.remove();
  form.onsubmit = async (event) => {
    event.preventDefault();
    go.disabled = true;
    wrong.textContent = "";
    try {
      await work(Object.fromEntries(new FormData(form)), dialog);
    } catch (error) {
      wrong.textContent = error.message;
    }
    go.disabled = false;
  };
  document.body.append(dialog);
  dialog.showModal();
  (form.querySelector("input:not([name=detail])") ?? go).focus(); // which sessions, where that is to be said
}
