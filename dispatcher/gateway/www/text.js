// Text for people, whoever wrote it. It goes into the page as text alone; the page's policy forbids markup (CSP).

// What shows as nothing, or turns round or moves what stands beside it: terminals' escapes and other controls, marks
// and overrides of direction, invisible characters.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/gu;

/** With what would be hidden written out, as \u202e; line ends and tabs stay. For who has to decide on it. */
export const visible = (text) =>
  text.replace(HIDDEN, (sign) => ("\n\t".includes(sign) ? sign : `\\u${sign.codePointAt(0).toString(16).padStart(4, "0")}`));

/** An element with these properties and children: other elements, or text. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
