/** Label maps as PNG files: canvases would write colours, not numbers. */

import type { Colour, PixelMap } from "./engine/types";

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  let value = n;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function chunk(type: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(12 + data.length);
  const view = new DataView(result.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) result[4 + i] = type.charCodeAt(i);
  result.set(data, 8);
  let crc = 0xffffffff;
  for (const byte of result.subarray(4, 8 + data.length)) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  view.setUint32(8 + data.length, (crc ^ 0xffffffff) >>> 0);
  return result;
}

/**
 * A map as PNG, like `deop segment --labels`: 0 is no name, k + 1 the k-th name; 8 bits with a palette for up to 255
 * names, else 16 bits of grey.
 */
export async function labelPng(map: PixelMap, width: number, height: number, colours: readonly Colour[]): Promise<Blob> {
  const wide = colours.length > 255;
  const stride = 1 + width * (wide ? 2 : 1);
  const rows = new Uint8Array(stride * height); // each begins with 0: no filter
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0, to = y * stride + 1; x < width; x++) {
      const value = map[at++];
      if (wide) rows[to++] = value >> 8;
      rows[to++] = value & 255;
    }
  const packed = await new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"))).arrayBuffer();
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([wide ? 16 : 8, wide ? 0 : 3], 8);
  const parts = [Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), chunk("IHDR", header)];
  if (!wide) parts.push(chunk("PLTE", Uint8Array.from([[0, 0, 0] as Colour, ...colours].flatMap((colour) => colour.map(Math.round)))));
  parts.push(chunk("IDAT", new Uint8Array(packed)), chunk("IEND", new Uint8Array()));
  return new Blob(parts, { type: "image/png" });
}
