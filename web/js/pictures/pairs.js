/** Which captions and masks are of which pictures, by their names, as training has it. Importing it does nothing. */

/**
 * @typedef {import("../shared/drops.js").Dropped} Dropped
 * @typedef {{ picture: Dropped, caption?: Dropped, mask?: Dropped }} Pair
 */

const MASK = "-masklabel.png";
const CAPTIONS = [".txt", ".caption"];

/** @param {string} name */
export const isMask = (name) => name.toLowerCase().endsWith(MASK);

/**
 * A file's name before its ending, and the ending.
 *
 * @param {string} name
 */
export function parted(name) {
  const at = name.lastIndexOf(".");
  return at > 0 ? [name.slice(0, at), name.slice(at)] : [name, ""];
}

/** @param {string} picture */
export const maskOf = (picture) => parted(picture)[0] + MASK;

/**
 * What the caption of a picture may be called: the first that is there counts.
 *
 * @param {string} picture
 */
export const captionsOf = (picture) =>
  [parted(picture)[0], picture].flatMap((start) => CAPTIONS.map((end) => start + end));

/** @param {string} picture */
const namesOf = (picture) => [maskOf(picture), ...captionsOf(picture)];

/**
 * The one among `pictures` that a caption or mask is of.
 *
 * @param {string} name
 * @param {string[]} pictures
 */
export function pictureOf(name, pictures) {
  const lower = name.toLowerCase();
  return (
    pictures.find((one) => namesOf(one).includes(name)) ??
    pictures.find((one) => namesOf(one).some((its) => its.toLowerCase() === lower))
  );
}

/**
 * Pictures with what is theirs: of one name in two folders, each has what lies in its own. What lies beside no picture
 * is that of the only one of its name, if there is only one. lone: what is of none of these pictures.
 *
 * @param {Dropped[]} pictures
 * @param {Dropped[]} others captions and masks
 * @returns {{ pairs: Pair[], lone: Dropped[] }}
 */
export function paired(pictures, others) {
  /** @type {Map<string, Dropped[]>} */
  const named = new Map();
  for (const picture of pictures) {
    for (const name of namesOf(picture.file.name)) put(named, name.toLowerCase(), picture);
  }
  /** @type {Map<Dropped, Dropped[]>} */
  const theirs = new Map();
  const lone = [];
  for (const other of others) {
    const alike = named.get(other.file.name.toLowerCase()) ?? [];
    const beside = alike.filter(({ folder }) => folder === other.folder);
    for (const picture of alike.length === 1 ? alike : beside) put(theirs, picture, other);
    if (!alike.length) lone.push(other);
  }
  const pairs = pictures.map((picture) => ({
    picture,
    caption: first(picture, captionsOf(picture.file.name), theirs.get(picture)),
    mask: first(picture, [maskOf(picture.file.name)], theirs.get(picture)),
  }));
  return { pairs, lone };
}

/**
 * The one that counts: beside the picture before elsewhere, an earlier name before a later one, the very name before one
 * in other letters.
 *
 * @param {Dropped} picture
 * @param {string[]} names
 * @param {Dropped[]} [files]
 */
function first(picture, names, files = []) {
  const lower = names.map((name) => name.toLowerCase());
  const ranked = files.flatMap((one) => {
    const place = lower.indexOf(one.file.name.toLowerCase());
    const rank = place + (one.folder === picture.folder ? 0 : names.length) + (names.includes(one.file.name) ? 0 : 0.5);
    return place < 0 ? [] : { one, rank };
  });
  return ranked.sort((a, b) => a.rank - b.rank)[0]?.one;
}

/**
 * @template Key, Value
 * @param {Map<Key, Value[]>} map
 * @param {Key} key
 * @param {Value} value
 */
function put(map, key, value) {
  const values = map.get(key);
  if (values) values.push(value);
  else map.set(key, [value]);
}
