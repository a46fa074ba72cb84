/** The list as the text that it is. Importing it does nothing. */

import { el, fill } from "../shared/dom.js";

export class TextView {
  area = el("textarea", { class: "bl-lines", rows: 8, spellcheck: "false", "aria-label": "Files, one a line" });
  problems = el("ul", { class: "bl-list", "aria-label": "To mind" });
  element = el("div", { class: "bl-column", hidden: true }, this.area, this.problems);

  /** @param {(text: string) => void} onChange */
  constructor(onChange) {
    this.area.addEventListener("input", () => onChange(this.area.value));
  }

  /**
   * @param {import("./grammar.js").Line[]} lines
   * @param {string} text
   * @param {Record<string, import("./files.js").Told>} told
   */
  show(lines, text, told) {
    // A field's own line ends differ from those of some files: what is alike is left as it is typed.
    if (this.area.value.replaceAll("\r\n", "\n") !== text.replaceAll("\r\n", "\n")) this.area.value = text;
    const items = lines.flatMap(({ problem }, at) => {
      const { problem: another, notes = [] } = told[at + 1] ?? {};
      return [problem || another, ...notes].filter(Boolean).map((one) => `Line ${at + 1}: ${one}`);
    });
    fill(this.problems, ...items.map((one) => el("li", { class: "bl-note" }, one)));
  }
}
