import { render } from "preact";
import { App } from "./app";
import { chooseEngine } from "./engines";

const engine = chooseEngine();
Object.assign(window, { deopEngine: engine }); // for the browser's console and for tests
render(<App engine={engine} />, document.getElementById("page")!);
