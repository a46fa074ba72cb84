/** Moves a row of a list with the pointer. Importing it does nothing. */

/**
 * A line shows where the row would go; nothing happens before the pointer is up.
 *
 * @param {PointerEvent} event of the row's grip
 * @param {Element[]} items all rows
 * @param {number} from place of this one
 * @param {(place: number) => void} onMoved
 */
export function dragRow(event, items, from, onMoved) {
  if (event.button !== 0) return;
  const grip = /** @type {HTMLElement} */ (event.currentTarget);
  let to = from;
  const show = (/** @type {boolean} */ moving) => {
    items.forEach((item, place) => {
      item.classList.toggle("bl-moving", moving && place === from);
      item.classList.toggle("bl-before", moving && place === to && to < from);
      item.classList.toggle("bl-after", moving && place === to && to > from);
    });
  };
  const move = (/** @type {PointerEvent} */ now) => {
    const above = items.filter((item) => middle(item) < now.clientY).length;
    to = above > from ? above - 1 : above;
    show(true);
  };
  const end = (/** @type {PointerEvent} */ now) => {
    grip.removeEventListener("pointermove", move);
    grip.removeEventListener("pointerup", end);
    grip.removeEventListener("pointercancel", end);
    show(false);
    if (now.type === "pointerup" && to !== from) onMoved(to);
  };
  grip.setPointerCapture(event.pointerId);
  grip.addEventListener("pointermove", move);
  grip.addEventListener("pointerup", end);
  grip.addEventListener("pointercancel", end);
}

/** @param {Element} item */
function middle(item) {
  const box = item.getBoundingClientRect();
  return (box.top + box.bottom) / 2;
}
