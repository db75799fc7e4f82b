// Text for people, whoever wrote it. It goes into the page as text alone; the page's policy forbids markup (CSP).

// What shows as nothing, or turns round or moves what stands beside it: terminals' escapes and other controls, marks
// and overrides of direction, invisible characters.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/gu;

/** With what would be hidden written out, as \u202e; line ends and tabs stay. For who has to decide on it. */
export const visible = (text) =>
  text.replace(HIDDEN, (sign) =>
    "\n\t".includes(sign) ? sign : `\\u${sign.codePointAt(0).toString(16).padStart(4, "0")}`,
  );

/** Of at most so many UTF-16 units, and how many there are where that is not all. */
export const bounded = (text, most) => (text.length <= most ? text : `${text.slice(0, most)}… (${count(text.length)})`);

/** A whole number, as 12,345. By hand: a page's first Intl.NumberFormat takes longer than all else until it shows. */
export const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");

/** Seconds, as 5 s, 4 min, 3.2 h. */
export function lasted(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** As ISO 8601 has it, in the local time. */
export function clock(unix) {
  const minutes = new Date(unix * 1000).getTimezoneOffset();
  return new Date((unix - minutes * 60) * 1000).toISOString().slice(0, 19).replace("T", " ");
}

/** An element with these properties and children: other elements, or text. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Terms and what they are, without those that are empty. */
export const terms = (pairs) =>
  element(
    "dl",
    {},
    ...pairs
      .filter(([, value]) => value !== "" && value !== null && value !== undefined)
      .flatMap(([term, value]) => [
        element("dt", {}, term),
        element("dd", {}, value instanceof Node ? value : visible(String(value))),
      ]),
  );

export const STILL = ". The rows stand still while you are among them"; // in a table's caption

/** A table in a box that scrolls by itself, also by keyboard. columns: [heading, class, its aria-sort]. */
export function table(caption, columns) {
  const head = element(
    "tr",
    {},
    ...columns.map(([name, className = "", ariaSort = null]) =>
      element("th", { scope: "col", className, ariaSort }, name),
    ),
  );
  const body = element("tbody");
  const title = element("caption", {}, caption);
  const whole = element("table", {}, title, element("thead", {}, head), body);
  const box = element("div", { className: "scrolls", tabIndex: 0, role: "region", ariaLabel: caption }, whole);
  return { box, body, title };
}
