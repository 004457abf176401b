// Pictures of known pixels, as files.
import { crc32, deflateSync } from "node:zlib";

/** PNG of vertical stripes of equal width, each an RGB triple. */
export function stripes(colours, width = 40, height = 20) {
  const row = Buffer.from([0, ...Array.from({ length: width }, (_, x) => Math.floor((x * colours.length) / width))]);
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const head = Buffer.alloc(4);
    head.writeUInt32BE(data.length);
    const tail = Buffer.alloc(4);
    tail.writeUInt32BE(crc32(body));
    return Buffer.concat([head, body, tail]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 3], 8);
  return Buffer.concat([
    Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]),
    chunk("IHDR", header),
    chunk("PLTE", Buffer.from(colours.flat())),
    chunk("IDAT", deflateSync(Buffer.concat(Array(height).fill(row)))),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

export const RED = [208, 64, 60];
export const BLUE = [63, 116, 204];
export const GREEN = [79, 160, 88];
export const file = (buffer, name = "flag.png", mimeType = "image/png") => ({ name, mimeType, buffer });
export const FLAG = file(stripes([RED, BLUE]));
