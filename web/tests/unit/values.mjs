// Values that Python computed for the same inputs: DEOP_PYTHON is a Python with deop's base install.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
export const python = process.env.DEOP_PYTHON ?? [at("../../../.venv/bin/python"), at("../../../../venv/bin/python")].find(existsSync) ?? "python3";

/** Runs a script of deop's repository; returns what it writes. */
export const runPython = (script, ...given) =>
  execFileSync(python, [at(script), ...given], {
    env: { ...process.env, PYTHONPATH: at("../../../src"), OMP_NUM_THREADS: "1" },
    maxBuffer: 1e9,
    stdio: ["ignore", "pipe", "inherit"],
  });

const KINDS = { float32: Float32Array, float64: Float64Array, int32: Int32Array, int64: BigInt64Array, uint8: Uint8Array };

/** The numbers of an array of `python_values.py`. */
export function numbers({ dtype, data }) {
  const bytes = Buffer.from(data, "base64");
  return new KINDS[dtype](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

let values;
export const pythonValues = () => (values ??= JSON.parse(runPython("python_values.py")));
