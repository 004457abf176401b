import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { Latest } = await load("latest.ts");

test("one job at a time, and of those that wait the newest", async () => {
  const latest = new Latest();
  const done = [];
  let open;
  const gate = new Promise((resolve) => (open = resolve));
  latest.ask(async () => (await gate, done.push(1)));
  for (const number of [2, 3, 4]) latest.ask(async () => done.push(number));
  open();
  await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(done, [1, 4]);
});
