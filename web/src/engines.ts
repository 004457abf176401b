/** Which engine a page has: its head says so, since the same files are served and exported. */

import { HttpEngine } from "./engine/http";
import { MockEngine } from "./engine/mock";
import type { Engine } from "./engine/types";
import { WasmEngine } from "./engine/wasm/engine";

export const engineName = (): string => document.querySelector<HTMLMetaElement>('meta[name="deop-engine"]')?.content ?? "http";

export function chooseEngine(): Engine {
  const name = engineName();
  switch (name) {
    case "http":
      return new HttpEngine();
    case "wasm":
      return new WasmEngine();
    case "mock":
      return new MockEngine({ delay: 150 });
    default:
      throw new Error(`unknown engine ${name}`);
  }
}
