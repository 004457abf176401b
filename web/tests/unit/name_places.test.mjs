import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { placeNames } = await load("name_places.ts");

/** Random rectangles over each other. */
function randomMap(seed, width, height, count) {
  let state = seed;
  const random = () => (state = (state * 1103515245 + 12345) % 2147483648) / 2147483648;
  const map = new Uint16Array(width * height);
  for (let id = 1; id <= count; id++) {
    const [x0, y0] = [Math.floor(random() * width), Math.floor(random() * height)];
    const [w, h] = [random() * width * 0.6, random() * height * 0.6];
    for (let y = y0; y < Math.min(height, y0 + h); y++) map.fill(id, y * width + x0, y * width + Math.min(width, Math.floor(x0 + w)));
  }
  return map;
}

test("names lie on their regions, inside the picture, and not over each other", () => {
  let placed = 0;
  for (let seed = 1; seed <= 20; seed++) {
    const [width, height] = [300 + 37 * seed, 900 - 31 * seed];
    const map = randomMap(seed, width, height, 12);
    const candidates = Array.from({ length: 12 }, (_, k) => ({ id: k + 1, isThing: false, width: 40 + 5 * k, height: 22 }));
    const boxes = placeNames(map, { width, height }, candidates).map(({ id, x, y }) => {
      const { width: w, height: h } = candidates[id - 1];
      return { id, left: x - w / 2, right: x + w / 2, top: y - h / 2, bottom: y + h / 2 };
    });
    boxes.forEach((box, index) => {
      assert.ok(box.left >= 0 && box.top >= 0 && box.right <= width && box.bottom <= height, JSON.stringify(box));
      for (const other of boxes.slice(0, index))
        assert.ok(box.right <= other.left || other.right <= box.left || box.bottom <= other.top || other.bottom <= box.top, `${box.id} lies over ${other.id}`);
      let [inside, all] = [0, 0];
      for (let y = Math.ceil(box.top); y < box.bottom; y++)
        for (let x = Math.ceil(box.left); x < box.right; x++, all++) if (map[y * width + x] === box.id) inside++;
      assert.ok(inside > 0.55 * all, `${inside} of ${all} pixels`); // 0.7 of the cells of a coarse grid
    });
    placed += boxes.length;
  }
  assert.ok(placed > 60, `${placed}`);
});

test("a name that is larger than its region or the picture has no place", () => {
  const map = new Uint16Array(100 * 100);
  map.fill(1, 0, 100 * 50);
  const place = (width, height) => placeNames(map, { width: 100, height: 100 }, [{ id: 1, isThing: false, width, height }]);
  assert.deepEqual(place(60, 20).map(({ id }) => id), [1]);
  assert.deepEqual(place(120, 20), []);
  assert.deepEqual(place(60, 90), []);
});
