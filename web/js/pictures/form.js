/** A file and what goes with it, as a form that the host takes. Importing it does nothing. */

/**
 * FormData writes " and line ends of a name as %22, %0D and %0A, and the host takes these for the name. Of what FormData
 * leaves as it is the host drops \ and cannot read more than one ;.
 */
const ODD = /["\\;\r\n]/;

/**
 * @param {Blob} content
 * @param {string} name what the host is to call it
 * @param {Record<string, string>} fields
 */
export function formOf(content, name, fields) {
  if (ODD.test(name)) return written(content, name, fields);
  const form = new FormData();
  form.append("image", content, name);
  for (const [key, value] of Object.entries(fields)) form.append(key, value);
  return form;
}

/**
 * The form by hand: only so its file can have a name in the one spelling that holds every letter.
 *
 * @param {Blob} content
 * @param {string} name
 * @param {Record<string, string>} fields
 */
function written(content, name, fields) {
  // A blob's type is in small letters, and so is the boundary. Pages from another machine have no crypto.randomUUID.
  const boundary = `blocklora-${[...crypto.getRandomValues(new Uint32Array(4))].join("-")}`;
  const part = (/** @type {string} */ head) => `--${boundary}\r\nContent-Disposition: form-data; ${head}\r\n`;
  const type = content.type || "application/octet-stream";
  return new Blob(
    [
      part(`name="image"; filename*=utf-8''${spelled(name)}`),
      `Content-Type: ${type}\r\n\r\n`,
      content,
      "\r\n",
      ...Object.entries(fields).map(([key, value]) => `${part(`name="${key}"`)}\r\n${value}\r\n`),
      `--${boundary}--\r\n`,
    ],
    { type: `multipart/form-data; boundary=${boundary}` },
  );
}

/** @param {string} name */
const spelled = (name) => encodeURIComponent(name).replace(/['()*]/g, (one) => `%${one.charCodeAt(0).toString(16)}`);
