/** Which engine a page has: its head says so, since the same files are served and exported. */

import { HttpEngine } from "./engine/http";
import { MockEngine } from "./engine/mock";
import type { Engine } from "./engine/types";

export function chooseEngine(): Engine {
  const name = document.querySelector<HTMLMetaElement>('meta[name="deop-engine"]')?.content ?? "http";
  switch (name) {
    case "http":
      return new HttpEngine();
    case "mock":
      return new MockEngine({ delay: 150 });
    default:
      throw new Error(`unknown engine ${name}`);
  }
}
