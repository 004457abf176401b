import { render } from "preact";
import { App } from "./app";
import { chooseEngine, engineName } from "./engines";
import { isolate } from "./isolation";

async function start(): Promise<void> {
  if (engineName() === "wasm" && !(await isolate())) return;
  const engine = chooseEngine();
  Object.assign(window, { deopEngine: engine }); // for the browser's console and for tests
  render(<App engine={engine} />, document.getElementById("page")!);
}

void start();
