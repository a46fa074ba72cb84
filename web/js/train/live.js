/** A training as it goes: phase, curve, samples, pace, and what can be done about it. Importing it does nothing. */

import { el, fill } from "../shared/dom.js";
import { api } from "../shared/host.js";
import { curve, smoothed } from "./curve.js";

/**
 * @typedef {object} RunState what the server tells of a run
 * @property {string} id
 * @property {string} phase
 * @property {boolean} running
 * @property {boolean} stopping
 * @property {number} pictures
 * @property {number} step
 * @property {number} steps
 * @property {number} resumed
 * @property {number} kept
 * @property {number} pace seconds
 * @property {number} left seconds
 * @property {string} message
 * @property {[number, number][]} curve
 * @property {{ step: number, filename: string, subfolder: string, type: string }[]} samples
 *
 * @typedef {{ stop: () => void, cancel: () => void, resume: () => void, use: () => void }} Actions
 */

/** @type {Record<string, (run: RunState) => string>} */
const PHASES = {
  preparing: () => "Getting the model ready",
  encoding: (run) => `Encoding ${run.pictures} pictures`,
  training: (run) => (run.stopping ? `Ending after step ${run.step + 1}` : `Step ${run.step} of ${run.steps}`),
  collecting: () => "Collecting what its layers see, so that it merges",
  done: (run) => `Trained: ${run.step} steps`,
  stopped: (run) => `Kept ${run.step} of ${run.steps} steps: the graph went on with them`,
  cancelled: (run) => (run.kept ? `Kept ${run.kept} steps: resume or use as it is` : "Cancelled before the first step"),
  failed: (run) => (run.kept ? `An error; kept ${run.kept} steps: resume or use as it is` : "An error ended it"),
};

/**
 * The part of the panel that shows a run. Each piece is drawn anew only when it changes, so that focus stays.
 *
 * @param {Actions} actions
 * @returns {{ element: HTMLElement, show: (run: RunState | null) => void }}
 */
export function liveView(actions) {
  const pieces = [
    piece((run) => [run.phase, run.step, run.pictures, run.kept, run.stopping], status),
    piece((run) => run.message, message),
    piece((run) => [run.step, run.phase, run.pace], figures),
    piece((run) => run.samples.length && [run.id, run.samples.at(-1)?.step], strip),
    piece(
      (run) => [run.running, run.stopping, run.phase, run.kept],
      (run) => buttons(run, actions),
    ),
  ];
  const element = el(
    "div",
    { class: "bl-column bl-live", hidden: true },
    pieces.map((one) => one.place),
  );
  /** @param {RunState | null} run */
  const show = (run) => {
    element.hidden = !run;
    if (run) for (const one of pieces) one.show(run);
  };
  return { element, show };
}

/**
 * @param {(run: RunState) => any} keyOf
 * @param {(run: RunState) => (Node | false)[]} draw
 */
function piece(keyOf, draw) {
  const place = el("div", { class: "bl-column", hidden: true });
  let drawn = "";
  /** @param {RunState} run */
  const show = (run) => {
    const key = JSON.stringify(keyOf(run) ?? null);
    if (key === drawn) return;
    drawn = key;
    const parts = draw(run);
    place.hidden = !parts.some(Boolean);
    fill(place, parts);
  };
  return { place, show };
}

/** @param {RunState} run */
function status(run) {
  const share = run.running && run.phase !== "training" ? null : run.step / run.steps;
  const done = share === null ? {} : { value: share, max: 1 };
  const words = (PHASES[run.phase] ?? (() => run.phase))(run);
  return [
    el("div", { class: "bl-status", role: "status", "data-phase": run.phase }, words),
    run.running && el("progress", { ...done, "aria-label": "Progress" }),
  ];
}

/** @param {RunState} run */
function message(run) {
  return [Boolean(run.message) && el("div", { class: "bl-warning bl-message" }, run.message)];
}

/** @param {RunState} run */
function figures(run) {
  return [
    run.curve.length > 1 && curve(run.curve, run.steps),
    run.curve.length > 0 && el("div", { class: "bl-dim" }, inFigures(run)),
  ];
}

/** @param {RunState} run */
function inFigures(run) {
  const loss = smoothed(run.curve).at(-1)?.[1] ?? 0;
  const parts = [`loss ${loss.toFixed(4)}`];
  if (run.pace) parts.push(`${run.pace.toFixed(run.pace < 10 ? 2 : 0)} s a step`);
  if (run.phase === "training" && run.pace) parts.push(`${span(run.left)} left`);
  if (run.resumed) parts.push(`resumed after step ${run.resumed}`);
  return parts.join(" \u00b7 ");
}

/** @param {number} seconds */
export function span(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}

/** @param {RunState} run */
function strip(run) {
  if (run.samples.length === 0) return [];
  const shown = run.samples.map((sample) => {
    const { step, ...query } = sample;
    const src = api.apiURL(`/view?${new URLSearchParams(query)}`);
    return el("figure", {}, el("img", { src, alt: `Sample after step ${step}` }), el("figcaption", {}, String(step)));
  });
  return [el("div", { class: "bl-strip", tabindex: 0, role: "group", "aria-label": "Samples by step" }, shown)];
}

/**
 * @param {RunState} run
 * @param {Actions} actions
 */
function buttons(run, actions) {
  const made = run.running
    ? [
        button("Stop and keep", actions.stop, run.stopping || run.phase === "collecting", "bl-main"),
        button("Cancel", actions.cancel),
      ]
    : run.kept > 0 && [
        button("Resume", actions.resume, false, "bl-main"),
        run.phase !== "stopped" && button("Use as it is", actions.use),
      ];
  return [made && el("div", { class: "bl-row" }, made)];
}

/**
 * @param {string} text
 * @param {() => void} click
 * @param {boolean} [disabled]
 * @param {string} [kind]
 */
function button(text, click, disabled = false, kind = "") {
  return el("button", { type: "button", class: kind, disabled, on: { click } }, text);
}
