"""Rendered photos of invented objects on a desk, with their masks: what a user would photograph and mark."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

OBJECTS = ("widget-a", "zindle", "blorp")
SIZE = (320, 240)


def render(number, *, objects=OBJECTS):
    """A photo (240, 320, 3) uint8, and for each object its mask (240, 320) bool.

    The desk, its light, the places, sizes and angles differ with ``number``. A sheet of paper and a pen, which nobody
    marks, lie there too.
    """
    random = np.random.default_rng(100 + number)
    width, height = SIZE
    base = np.array([150, 110, 75]) + random.integers(-12, 12, 3)
    rows, columns = np.mgrid[0:height, 0:width]
    grain = 8 * np.sin(rows / 3 + 2 * np.sin(columns / 40)) + random.normal(0, 4, (height, width))
    light = 1 + 0.25 * (columns / width - 0.5) * random.choice([-1, 1])
    desk = ((base + grain[..., None]) * light[..., None]).clip(0, 255).astype(np.uint8)
    photo = Image.fromarray(desk)
    draw = ImageDraw.Draw(photo)
    places = random.permutation([(70, 70), (200, 60), (110, 175), (250, 170)])
    x, y = places[3] + random.integers(-15, 15, 2)
    draw.polygon([(x - 40, y - 30), (x + 35, y - 36), (x + 42, y + 28), (x - 36, y + 34)], fill=(235, 235, 228))
    draw.line([(x - 30, y + 40), (x + 45, y + 20)], fill=(25, 25, 30), width=5)
    masks = {}
    for name, place in zip(OBJECTS, places, strict=False):
        if name in objects:
            radius, angle = random.integers(30, 40), random.uniform(0, 360)
            sprite, mask = _object(name, int(radius), float(angle))
            corner = tuple(int(value) for value in place + random.integers(-12, 12, 2) - np.array(sprite.size) // 2)
            photo.paste(sprite, corner, mask)
            whole = Image.new("L", SIZE)
            whole.paste(mask, corner)
            masks[name] = np.asarray(whole) > 127
    blurred = np.asarray(photo.filter(ImageFilter.GaussianBlur(0.6)), np.float32)
    return (blurred + random.normal(0, 3, blurred.shape)).clip(0, 255).astype(np.uint8), masks


def _object(name, radius, angle):
    """A picture of an object, and its mask."""
    side = 2 * radius + 12
    centre = side / 2
    sprite, mask = Image.new("RGB", (side, side)), Image.new("L", (side, side))
    turn = np.deg2rad(angle)

    def ring(count, radii):
        angles = turn + np.arange(count) * 2 * np.pi / count
        return [
            (centre + r * np.cos(a), centre + r * np.sin(a))
            for a, r in zip(angles, np.resize(radii, count), strict=True)
        ]

    for image, colours in ((sprite, None), (mask, (255, 0))):
        draw = ImageDraw.Draw(image)
        if name == "widget-a":  # a red gear with a yellow core
            draw.polygon(
                ring(16, [radius, radius, 0.72 * radius, 0.72 * radius]), fill=(190, 30, 35) if not colours else 255
            )
            draw.ellipse(_circle(centre, 0.4 * radius), fill=(245, 205, 40) if not colours else 255)
        elif name == "zindle":  # a blue ring, through which the desk is seen
            draw.ellipse(_circle(centre, radius), fill=(30, 70, 190) if not colours else 255)
            draw.ellipse(_circle(centre, 0.45 * radius), fill=(0, 0, 0) if not colours else 0)
        else:  # a green star with purple arms
            draw.polygon(ring(10, [radius, 0.5 * radius]), fill=(110, 40, 140) if not colours else 255)
            draw.polygon(ring(10, [0.55 * radius, 0.45 * radius]), fill=(40, 170, 70) if not colours else 255)
    return sprite, mask


def _circle(centre, radius):
    return [centre - radius, centre - radius, centre + radius, centre + radius]
