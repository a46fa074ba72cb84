// Draws the scenes of a JSON-lines file as PNG: `node render.mjs SCENES FOLDER [SCALE]`.
//
// Everything is decided by whoever wrote the scenes; here nothing is drawn by lot. A picture that is there already is
// left alone, so that an interrupted run goes on where it stopped.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// The packages lie in the working folder, not beside this file.
const require = createRequire(join(process.cwd(), "package.json"));
const { createAvatar } = await import(require.resolve("@dicebear/core"));
const { Resvg } = require("@resvg/resvg-js");

const loaded = new Map();

async function load(name, read) {
  if (!loaded.has(name)) loaded.set(name, await read());
  return loaded.get(name);
}

// Two figures of one style use the same ids for their masks.
function withOwnIds(svg, prefix) {
  return svg
    .replace(/\bid="([^"]+)"/g, `id="${prefix}$1"`)
    .replace(/url\(#([^)]+)\)/g, `url(#${prefix}$1)`)
    .replace(/href="#([^"]+)"/g, `href="#${prefix}$1"`);
}

async function personSvg(part) {
  const style = await load(part.style, () => import(require.resolve(`@dicebear/${part.style}`)));
  return createAvatar(style, { seed: "fixed", ...part.options }).toString();
}

async function iconSvg(part) {
  const icons = await load(part.set, () => require(`@iconify-json/${part.set}/icons.json`));
  const icon = icons.icons[part.name];
  if (!icon) throw new Error(`${part.set} has no icon ${part.name}`);
  const width = icon.width ?? icons.width ?? 16;
  const height = icon.height ?? icons.height ?? 16;
  const root = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}">`;
  return `${root}${icon.body}</svg>`;
}

// A figure's own <svg> becomes a nested one of the wanted place and size.
function placed(svg, part, prefix) {
  const viewBox = /viewBox="([^"]+)"/.exec(svg)[1];
  const inner = withOwnIds(svg, prefix).replace(/^[\s\S]*?<svg[^>]*>/, "").replace(/<\/svg>\s*$/, "");
  const root = /<svg([^>]*)>/.exec(svg)[1];
  const fill = /\bfill="([^"]+)"/.exec(root)?.[1];
  const paint = fill ? ` fill="${fill}"` : "";
  const box = `x="${part.x}" y="${part.y}" width="${part.size}" height="${part.size}" viewBox="${viewBox}"`;
  return `<svg ${box}${paint}>${inner}</svg>`;
}

async function sceneSvg(scene) {
  const parts = [];
  for (const [number, part] of scene.parts.entries()) {
    const svg = part.kind === "person" ? await personSvg(part) : await iconSvg(part);
    parts.push(placed(svg, part, `f${number}-`));
  }
  const size = `width="${scene.width}" height="${scene.height}" viewBox="0 0 ${scene.width} ${scene.height}"`;
  const ground = `<rect width="100%" height="100%" fill="${scene.ground_colour}"/>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ${size}>${ground}${parts.join("")}</svg>`;
}

const [scenes, folder, scale = "1"] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
for (const line of readFileSync(scenes, "utf8").split("\n")) {
  if (!line) continue;
  const scene = JSON.parse(line);
  const path = join(folder, scene.file);
  if (existsSync(path)) continue;
  const width = Math.round(scene.width * Number(scale));
  const options = { fitTo: { mode: "width", value: width }, font: { loadSystemFonts: false } };
  const png = new Resvg(await sceneSvg(scene), options).render().asPng();
  writeFileSync(`${path}.part`, png);
  renameSync(`${path}.part`, path);
}
