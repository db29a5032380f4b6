// The few things the page does to its elements. Texts go in as text, never as markup: names come from cameras.

/** Set an element's text, touching the document only if it changes. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A new element with a class and children; strings become text. */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/**
 * Make the children of `parent` follow `entries`, a list of [key, value].
 * A key keeps its element, so focus and selection survive; `update(element, value)` fills it in.
 */
export function follow(parent, entries, create, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let next = parent.firstElementChild;
  for (const [key, value] of entries) {
    let element = known.get(key);
    known.delete(key);
    if (!element) {
      element = create(key);
      element.dataset.key = key;
    }
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
    update(element, value);
  }
  for (const element of known.values()) element.remove();
}
