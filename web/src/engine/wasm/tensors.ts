/** Tensors of a safetensors file, as `deop.tensors` reads them. */

export interface Tensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  /** The bytes of the tensor, not copied. */
  readonly bytes: Uint8Array;
}

/** @throws RangeError the file is damaged. */
export function readTensors(file: Uint8Array): Map<string, Tensor> {
  const length = file.length >= 8 ? Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true)) : Infinity;
  if (length > file.length - 8) throw new RangeError("the file has no header");
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length))) as Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  const tensors = new Map<string, Tensor>();
  for (const [key, entry] of Object.entries(header)) {
    if (key === "__metadata__") continue;
    const [start, stop] = entry.data_offsets.map((offset) => offset + 8 + length);
    if (!(start <= stop && stop <= file.length)) throw new RangeError(`${key} lies outside the file`);
    tensors.set(key, { dtype: entry.dtype, shape: entry.shape, bytes: file.subarray(start, stop) });
  }
  return tensors;
}

/** The numbers of a float32 tensor, copied, since a file may place them at any byte. */
export const floatsOf = (tensor: Tensor): Float32Array => new Float32Array(tensor.bytes.slice().buffer);
