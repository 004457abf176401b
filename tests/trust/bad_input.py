"""The table of bad and unusual input: each row is a file of a stranger and the documented outcome, for every surface.

docs/promises.md describes it. The surfaces are in test_bad_input_*.py.
"""

import json
import os
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 60
RED, WHITE = (200, 30, 30), (255, 255, 255)


@dataclass(frozen=True)
class Row:
    """One kind of file.

    Attributes:
        name: of the file, which is also the id of the row.
        write: makes the file.
        shape: (H, W) of the photo that is read; None: the file is refused.
        colour: RGB in its upper left corner, within 12; None: any.
        reason: pattern in the message of a refusal.
        status: what the server answers; 0: such a file cannot be sent.
    """

    name: str
    write: Callable[[Path], None]
    shape: tuple[int, int] | None = None
    colour: tuple[int, int, int] | None = None
    reason: str = ""
    status: int = 200


def picture(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """A red photo."""
    return Image.new("RGB", size, RED).convert(mode)


def encoded(form: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = BytesIO()
    (image or picture()).save(file, form, **options)
    return file.getvalue()


def noise(form: str) -> bytes:
    """A photo whose file is long enough to be cut."""
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return encoded(form, Image.fromarray(values))


def content(data: Callable[[], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data())

    return write


def photo(form: str, **options: object) -> Callable[[Path], None]:
    return content(lambda: encoded(form, **options))


def of(form: str, make: Callable[[], Image.Image], **options: object) -> Callable[[Path], None]:
    return content(lambda: encoded(form, make(), **options))


def cut(form: str, share: float = 0.5) -> Callable[[Path], None]:
    return content(lambda: noise(form)[: int(len(noise(form)) * share)])


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", exif=exif)


def animation(form: str) -> bytes:
    others = [Image.new("RGB", (WIDTH, HEIGHT), "blue")]
    return encoded(form, save_all=True, append_images=others, duration=100)


def palette_with_transparency() -> Image.Image:
    image = picture("P")
    image.info["transparency"] = image.getpixel((0, 0))
    return image


def floats(value: float) -> Image.Image:
    values = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    values[1, 1] = value
    return Image.fromarray(values)


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.linspace(60_000, 65_535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG whose header announces 3.6 thousand million pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png_of_16_bits_a_colour() -> bytes:
    """A red PNG with 16 bits for each of red, green and blue, which Pillow cannot write."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">HHH", *(257 * value for value in RED)) * WIDTH
    data = zlib.compress(row * HEIGHT)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png_with_a_profile_that_unpacks_to_gigabytes() -> bytes:
    start = encoded("PNG")
    return start[:33] + chunk(b"iCCP", b"profile\0\0" + zeros()) + start[33:]


def zeros() -> bytes:
    """Compressed: 200 MB."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(10_000_000)) for _ in range(20)) + packer.flush()


def announcing(form: str, start: bytes, size: bytes) -> Callable[[], bytes]:
    """A photo whose header announces another size: the bytes of the size follow ``start``."""

    def make() -> bytes:
        data = encoded(form)
        place = data.index(start) + len(start)
        return data[:place] + size + data[place + len(size) :]

    return make


def png_with_a_text_that_unpacks_to_gigabytes() -> bytes:
    start = encoded("PNG")
    return start[:33] + chunk(b"zTXt", b"Comment\0\0" + zeros()) + start[33:]


def webp_bomb() -> bytes:
    """A lossless WebP whose header announces 16,384 x 16,384 pixels, without them."""
    bits = struct.pack("<I", 16_383 | 16_383 << 14)
    data = b"\x2f" + bits + bytes(100)
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def tiff_bomb() -> bytes:
    """A TIFF that announces 200,000 x 200,000 pixels in one strip of 100 bytes."""
    tags = [
        (256, 200_000),
        (257, 200_000),
        (258, 1),
        (259, 8),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 200_000),
        (279, 100),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 108) + bytes(100) + struct.pack("<H", len(tags)) + entries + bytes(4)


def directory(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(here)


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def terabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.write(encoded("PNG"))
        file.truncate(1 << 40)  # a hole: no space on the disk


FULL, DAMAGED = (HEIGHT, WIDTH), "truncated|damaged|ends|identify|cannot convert"
ROWS = (
    # photos in every form
    Row("plain.png", photo("PNG"), FULL, RED),
    Row("png-named.jpg", photo("PNG"), FULL, RED),
    Row("jpeg-named.png", photo("JPEG"), FULL, RED),
    Row("one-pixel.png", of("PNG", lambda: picture(size=(1, 1))), (1, 1), RED),
    Row("row.png", of("PNG", lambda: picture(size=(10_000, 1))), (1, 10_000), RED),
    Row("column.png", of("PNG", lambda: picture(size=(1, 10_000))), (10_000, 1), RED),
    Row("animated.gif", content(lambda: animation("GIF")), FULL, RED),
    Row("animated.webp", content(lambda: animation("WEBP")), FULL, RED),
    Row("animated.png", content(lambda: animation("PNG")), FULL, RED),
    Row("pages.tif", content(lambda: animation("TIFF")), FULL),
    Row("cmyk.jpg", of("JPEG", lambda: picture("CMYK")), FULL, RED),
    Row("16-bit.png", of("PNG", sixteen_bits), FULL, (233, 233, 233)),
    Row("16-bit-colour.png", content(png_of_16_bits_a_colour), FULL, RED),
    Row("1-bit.png", of("PNG", lambda: Image.new("1", (WIDTH, HEIGHT), 1)), FULL, WHITE),
    Row("palette-transparent.png", of("PNG", palette_with_transparency), FULL, WHITE),
    Row("transparent.png", of("PNG", lambda: Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))), FULL, WHITE),
    Row("grey-alpha.png", of("PNG", lambda: Image.new("LA", (WIDTH, HEIGHT), (9, 0))), FULL, WHITE),
    Row("rotated.jpg", content(rotated), (WIDTH, HEIGHT), RED),
    Row("damaged-exif.jpg", of("JPEG", picture, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(40)), FULL, RED),
    Row("profile.png", of("PNG", picture, icc_profile=b"not a profile" * 20), FULL, RED),
    Row("float.tif", of("TIFF", lambda: floats(0.5)), FULL, (128, 128, 128)),
    # damaged
    Row("empty.jpg", content(bytes), reason=r"empty \(0 bytes\)", status=422),
    Row("cut.jpg", cut("JPEG", 0.6), reason=DAMAGED, status=422),
    Row("cut.png", cut("PNG"), reason=DAMAGED, status=422),
    Row("cut.webp", cut("WEBP"), reason=DAMAGED, status=415),
    Row("cut.gif", cut("GIF"), reason=DAMAGED, status=422),
    Row("cut.bmp", cut("BMP"), reason=DAMAGED, status=422),
    Row("cut.tif", cut("TIFF"), reason=DAMAGED, status=422),
    Row("head-only.jpg", content(lambda: noise("JPEG")[:30]), reason=DAMAGED, status=415),
    Row("signature-only.png", content(lambda: noise("PNG")[:8]), reason=DAMAGED, status=415),
    # no photos
    Row("text.jpg", content(lambda: b"this is a text\n" * 50), reason="identify its format", status=415),
    Row("random.png", content(lambda: np.random.default_rng(1).bytes(5000)), reason="identify its format", status=415),
    Row("page.jpg", content(lambda: b"<!DOCTYPE html><script>alert(1)</script>"), reason="web page", status=415),
    Row("drawing.png", content(lambda: b"<svg onload='alert(1)'/>"), reason="SVG drawing", status=415),
    Row("post.jpg", content(lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch pwned) (w) file\n"),
        reason="PostScript|EPS", status=415),
    Row("archive.png", content(lambda: b"PK\x03\x04" + bytes(100)), reason="zip archive", status=415),
    Row("radiance.png", content(lambda: b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n" + bytes(4)),
        reason="Radiance HDR", status=415),
    Row("exr.png", content(lambda: b"\x76\x2f\x31\x01" + bytes(100)), reason="OpenEXR", status=415),
    Row("nan.tif", of("TIFF", lambda: floats(float("nan"))), reason="floats range", status=422),
    Row("infinite.tif", of("TIFF", lambda: floats(float("inf"))), reason="floats range", status=422),
    Row("negative.tif", of("TIFF", lambda: floats(-0.5)), reason="floats range", status=422),
    Row("hdr.tif", of("TIFF", lambda: floats(1e6)), reason="floats range", status=422),
    # decompression bombs
    Row("bomb.png", content(png_bomb), reason="60000 x 60000 px is more than", status=413),
    Row("bomb.webp", content(webp_bomb), reason=f"{DAMAGED}|more than", status=415),
    Row("bomb.tif", content(tiff_bomb), reason="200000 x 200000 px is more than", status=413),
    Row("text-bomb.png", content(png_with_a_text_that_unpacks_to_gigabytes), reason=DAMAGED, status=415),
    Row("profile-bomb.png", content(png_with_a_profile_that_unpacks_to_gigabytes), reason=DAMAGED, status=415),
    Row("bomb.jpg", content(announcing("JPEG", b"\xff\xc0\0\x11\x08", b"\xff\xff\xff\xff")),
        reason="65535 x 65535 px is more than", status=413),
    Row("bomb.gif", content(announcing("GIF", b"GIF87a", b"\xff\xff\xff\xff")),
        reason="65535 x 65535 px is more than", status=413),
    Row("no-width.png", content(announcing("PNG", b"IHDR", bytes(4))), reason=f"{DAMAGED}|no pixels", status=415),
    Row("terabyte.png", terabyte, reason="at most .* are read", status=0),
    # no files
    Row("directory.jpg", directory, reason="folder|director", status=0),
    Row("pipe.jpg", fifo, reason="it is a pipe", status=0),
    Row("device.jpg", endless_device, reason="it is a device", status=0),
    Row("socket.jpg", unix_socket, reason="it is a device", status=0),
    Row("nothing.jpg", link_to_nothing, reason="no such file", status=0),
    Row("loop.jpg", link_to_itself, reason="(?i)symbolic links", status=0),
)  # fmt: skip


SCRIPTS = (
    "katze", "Käse", "кошка", "γάτα", "猫", "ねこ", "고양이", "बिल्ली", "แมว", "ድመት", "გატო", "կատու", "ꦏꦸꦕꦶꦁ",
    "קאץ חתול", "قطة", "اِسْمٌ مُشَكَّل", "\U0001f408\u200d\u2b1b", "\U0001f469\u200d\U0001f467", "e\u0301", "\ufb00",
    "\uff21", "\U0001d4b8\U0001d4b6", "a" * 200,
)  # fmt: skip
"""Names in many scripts: right to left, with marks, emoji of several characters, compatibility forms, long."""

HOSTILE = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a&b<c>\"d'e", "{{7*7}}", "{% raw %}", "${7*7}", "{0}",
    "{name!r}", "%s%n", "[bold red]x[/]", ":cat:", "$(touch pwned)", "`touch pwned`", "'; DROP TABLE a; --", "a\\b",
    "..", "../up", "-rf", "--help", "CON", "a=b", "=1+1", "@SUM(1)", "null", "true", "*", "?", "a:b", "]]>", "<!--",
)  # fmt: skip
"""Names that mean something to a page, a template, a shell, a spreadsheet or a terminal."""

CONTROL = (
    "\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;https://evil.example\x07link\x1b]8;;\x07", "a\rb", "a\x08b", "\x9b31m",
    "a\x00b", "a\x7fb", "\u202etxt.exe", "a\u2066b",
)  # fmt: skip
"""Characters that control a terminal, or change the order in which it shows a text."""


def hostile_files() -> list[str]:
    """Names of photos that mean something to a shell, a terminal or a file system."""
    names = [
        *SCRIPTS,
        *HOSTILE,
        *(name for name in CONTROL if "\0" not in name),
        "a\nb",
        "-",
        " ",
        "a ",
        ".a",
        "a.",
        "~",
    ]
    names += ["a" * 240, b"\xff\xfe".decode(errors="surrogateescape")]
    return [f"{name.replace('/', '_')}.png" for name in names]


def control_characters(text: str) -> list[str]:
    """The characters of an output that a terminal would obey, besides line breaks."""
    marks = {
        *map(chr, range(32)),
        *map(chr, range(127, 160)),
        *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    }
    return sorted(set(text) & marks - {"\n"})


def write_quick_model(folder: Path) -> Path:
    """The built-in model with small photos, as a folder of links: results do not matter here, and time does."""
    from deop.zoo import NANO

    folder.mkdir()
    for file in NANO.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((NANO / "config.json").read_text(encoding="utf-8"))
    config["settings"]["resize"] |= {"short_side": 64, "long_side": 128}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
