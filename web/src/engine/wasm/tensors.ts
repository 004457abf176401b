/** Tensors of a safetensors file, as `deop.tensors` reads them. */

export interface Tensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  /** The bytes of the tensor, not copied. */
  readonly bytes: Uint8Array;
}

type Entry = { dtype: string; shape: number[]; data_offsets: [number, number] };

/** The header of a file, and where its tensors begin. */
function headerOf(file: Uint8Array): { entries: [string, Entry][]; metadata: Record<string, string>; start: number } {
  const length = file.length >= 8 ? Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true)) : Infinity;
  if (length > file.length - 8) throw new RangeError("the file has no header");
  const { __metadata__: metadata = {}, ...header } = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  return { entries: Object.entries(header as Record<string, Entry>), metadata, start: 8 + length };
}

/** @throws RangeError the file is damaged. */
export function readTensors(file: Uint8Array): Map<string, Tensor> {
  const { entries, start } = headerOf(file);
  const tensors = new Map<string, Tensor>();
  for (const [key, entry] of entries) {
    const [from, to] = entry.data_offsets.map((offset) => offset + start);
    if (!(from <= to && to <= file.length)) throw new RangeError(`${key} lies outside the file`);
    tensors.set(key, { dtype: entry.dtype, shape: entry.shape, bytes: file.subarray(from, to) });
  }
  return tensors;
}

/** What a file says about itself; empty if it says nothing. */
export const metadataOf = (file: Uint8Array): Readonly<Record<string, string>> => headerOf(file).metadata;

/** The numbers of a float32 tensor, copied, since a file may place them at any byte. */
export const floatsOf = (tensor: Tensor): Float32Array => new Float32Array(tensor.bytes.slice().buffer);
