// A client of `deop serve` in JavaScript, for Node 20 or later and for browsers: segments a photo.
// Usage: node segment.mjs PHOTO NAMES. The address is DEOP_ADDRESS; with a token, set DEOP_TOKEN.

/** What a photo (a Blob) shows of the names; waits when the server is busy. */
export async function segment(photo, names, { address = "http://localhost:8000", token = "", ...fields } = {}) {
  const form = new FormData();
  form.set("photo", photo);
  for (const [name, value] of Object.entries({ names, ...fields })) form.set(name, value);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  for (let attempt = 1; ; attempt++) {
    const answer = await fetch(`${address}/v1/segment`, { method: "POST", body: form, headers });
    if (answer.ok) return answer.json();
    if (![429, 503].includes(answer.status) || attempt === 8) throw new Error(`${answer.status}: ${(await answer.json()).detail}`);
    await new Promise((resume) => setTimeout(resume, 1000 * Number(answer.headers.get("Retry-After") ?? 1)));
  }
}

if (globalThis.process?.argv[1]?.endsWith("segment.mjs")) {
  const { readFile } = await import("node:fs/promises");
  const [, , path, names] = process.argv;
  const { DEOP_ADDRESS: address, DEOP_TOKEN: token } = process.env;
  const { classes } = await segment(new Blob([await readFile(path)]), names, { address, token });
  for (const { name, share } of classes) console.log(`${(100 * share).toFixed(1).padStart(5)}%  ${name}`);
}
