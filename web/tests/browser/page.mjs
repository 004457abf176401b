// Helpers for tests in a browser: a server of files, and a page whose every foreign request is an error.
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
export const root = join(here, "../..");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg" };

/** Serves a folder with headers; `answer(request, response)` may take a request over by returning true. */
export async function serve(folder, answer = () => false, headers = {}) {
  const server = createServer(async (request, response) => {
    if (await answer(request, response)) return;
    const path = normalize(new URL(request.url, "http://x").pathname).replace(/\/$/, "/index.html");
    try {
      const body = readFileSync(join(folder, path));
      response.writeHead(200, { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream", ...headers }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => new Promise((done) => (server.closeAllConnections(), server.close(done))) };
}

export const launch = () =>
  chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });

/** A page that records errors of scripts and requests to other hosts. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, permissions: ["clipboard-read", "clipboard-write"], ...options });
  const page = await context.newPage();
  const errors = [];
  const requests = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  const origin = new URL(url).origin;
  // Of the context, which has the requests of workers and of the service worker, too.
  context.on("request", (request) => {
    const address = request.url();
    requests.push(address);
    if (!address.startsWith(origin) && !/^(blob|data):/.test(address)) errors.push(`foreign request: ${address}`);
  });
  await page.goto(url);
  return { page, context, errors, requests };
}

/** Waits until the result is that of the settings. */
export async function settled(page) {
  await page.waitForSelector(".progress", { state: "detached", timeout: 60_000 });
  await page.waitForSelector(".results", { timeout: 60_000 });
}
