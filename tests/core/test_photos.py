"""Training pictures of every format, depth and size, and the files that lie around them."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin, features

from blocklora_core.training.data.folder import listing, suffixes
from blocklora_core.training.data.photos import MOST_PIXELS, photo_size, read_mask, read_photo

FORMATS = [
    ("png", "PNG"), ("jpg", "JPEG"), ("JPEG", "JPEG"), ("jfif", "JPEG"), ("jpe", "JPEG"), ("webp", "WEBP"),
    ("bmp", "BMP"), ("tif", "TIFF"), ("TIFF", "TIFF"), ("gif", "GIF"), ("tga", "TGA"), ("ppm", "PPM"), ("ico", "ICO"),
    ("jp2", "JPEG2000"), ("avif", "AVIF"), ("qoi", "QOI"), ("dds", "DDS"),
]  # fmt: skip
OPTIONAL = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}


@pytest.mark.parametrize(("suffix", "form"), FORMATS, ids=[suffix for suffix, _ in FORMATS])
def test_every_format_that_pillow_reads_is_read(tmp_path: Path, suffix: str, form: str) -> None:
    if not features.check(OPTIONAL.get(form, "zlib")) or f".{suffix.lower()}" not in suffixes():
        pytest.skip(f"this Pillow knows no {form}")
    if form not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {form}")
    Image.new("RGB", (32, 16), (255, 0, 0)).save(tmp_path / f"a.{suffix}", format=form)
    assert len(listing(tmp_path).pictures) == 1
    colours, mask = read_photo(tmp_path / f"a.{suffix}")
    assert colours.shape[2:] == (3,) and colours.shape[:2] == mask.shape and mask.min() == 1
    assert np.abs(colours - [1, 0, 0]).max() < 0.05


@pytest.mark.parametrize("name", ["a.eps", "a.pdf", "a.mpeg", "a.txt", "a.safetensors", "._a.png", ".a.png", "a"])
def test_what_is_no_picture_is_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert listing(tmp_path).pictures == ()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"


def test_a_picture_is_never_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes decide what Pillow opens, and it gives EPS to Ghostscript: here a script that says that it ran."""
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\nexit 1\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    # IPTC holds a picture of any format: a strip of 16 x 16, its bytes in one record.
    records = ((3, 60, b"\x01\x00"), (3, 20, b"\x00\x10"), (3, 30, b"\x00\x10"), (3, 120, b"\x00\x01"), (8, 10, EPS))
    iptc = b"".join(struct.pack(">BBBH", 0x1C, kind, number, len(data)) + data for kind, number, data in records)
    for name, data in (("a.png", EPS), ("b.jpg", iptc)):
        (tmp_path / name).write_bytes(data)
        for read in (photo_size, read_photo):
            with pytest.raises(ValueError, match=rf"{name}: expected a readable picture"):
                read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def flat_png(side: int, depth: int, colour: int, bits: int) -> bytes:
    """A black picture of many pixels and few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(9), bytes(1 + side * bits // 8)
    packed = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    size = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    return PNG + chunk(b"IHDR", size) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


PNG = b"\x89PNG\r\n\x1a\n"


def in_icon(data: bytes) -> bytes:
    """An icon that calls its picture one of 16 x 16."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(data), 22) + data


@pytest.mark.parametrize(
    ("name", "side", "kind"), [("a.png", 8200, (8, 6, 32)), ("a.png", 8200, (16, 0, 16)), ("a.ico", 8200, (8, 6, 32))]
)
def test_many_pixels_in_few_bytes_are_refused(tmp_path: Path, name: str, side: int, kind: tuple[int, int, int]) -> None:
    data = flat_png(side, *kind)
    (tmp_path / name).write_bytes(in_icon(data) if name.endswith("ico") else data)
    with pytest.raises(ValueError, match="expected a readable picture"):
        read_photo(tmp_path / name)


def test_numbers_that_are_none_are_no_picture(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="not finite"):
        read_photo(tmp_path / "a.tif")


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for name in ("a.png", "a.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        colours, mask = read_photo(tmp_path / name)
        assert np.abs(colours[..., 0] - ramp / 65535).max() < 1e-3 and mask.min() == 1
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "f.tif")
    assert np.abs(read_photo(tmp_path / "f.tif")[0][..., 1] - ramp / 65535).max() < 1e-3
    assert np.abs(read_mask(tmp_path / "a.png", tmp_path / "f.tif") - ramp / 65535).max() < 1e-3


@pytest.mark.parametrize("kind", ["text", "profile"])
def test_a_png_with_much_text_is_read(tmp_path: Path, kind: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "x" * 2_000_000, zip=True)
    info.add_text("parameters", "y" * 2_000_000, zip=True)
    more = {"pnginfo": info} if kind == "text" else {"icc_profile": bytes(2_000_000)}
    Image.new("RGB", (16, 8), "red").save(tmp_path / "a.png", **more)  # type: ignore[arg-type]
    assert read_photo(tmp_path / "a.png")[0].shape == (8, 16, 3)


def large(path: Path, mode: str = "RGB", orientation: int = 1) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.effect_noise((3000, 1999), 60).convert("RGB")
    picture.paste("red", (0, 0, 1500, 1999))
    picture.convert(mode).save(path, exif=exif)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
def test_large_photos_are_scaled_as_they_are_read(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode in ("RGB", "L", "CMYK") else "a.png")
    large(path, mode)
    colours, mask = read_photo(path)
    height, width = mask.shape
    assert MOST_PIXELS * 0.98 < height * width <= MOST_PIXELS and abs(width / height - 3000 / 1999) < 0.01
    assert colours.shape == (height, width, 3)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_large_photo_and_its_mask_stay_of_one_size_and_upright(tmp_path: Path, orientation: int) -> None:
    large(tmp_path / "a.jpg", orientation=orientation)
    size = (1999, 3000) if orientation in (6, 8) else (3000, 1999)
    Image.new("L", size, 255).save(tmp_path / "a-masklabel.png")
    colours, _ = read_photo(tmp_path / "a.jpg")
    assert read_mask(tmp_path / "a-masklabel.png", tmp_path / "a.jpg").shape == colours.shape[:2]
    red = (colours[..., 0] > 0.9) & (colours[..., 1] < 0.1)
    halves = {1: red[:, :600], 3: red[:, -600:], 6: red[:600], 8: red[-600:]}
    assert halves[orientation].mean() > 0.95 and red.mean() < 0.6


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + bytes(40), b"GIF89a"]
)
def test_errors_name_the_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "hero.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"Picture hero\.png: expected a readable picture, got: "):
        read_photo(tmp_path / "hero.png")


def test_a_cut_off_picture_names_its_file(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 60).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.png"):
        read_photo(tmp_path / "a.png")


CAPTION_NAMES = ["a.txt", "a.caption", "a.TXT", "a.Caption", "A.txt", "a.png.txt", "a.png.caption", "a.PNG.TXT"]


@pytest.mark.parametrize("name", CAPTION_NAMES)
def test_captions_are_found_under_every_usual_name(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / name).write_text("hero")
    ((picture,), skipped) = (listing(tmp_path).pictures, listing(tmp_path).skipped)
    assert picture.caption == tmp_path / name and skipped == ()


def test_the_nearest_caption_counts(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    for name in ("a.jpg.txt", "a.caption"):
        (tmp_path / name).write_text(name)
    assert [picture.caption and picture.caption.name for picture in listing(tmp_path).pictures] == ["a.caption"] * 2
    (tmp_path / "a.txt").write_text("x")
    assert [picture.caption and picture.caption.name for picture in listing(tmp_path).pictures] == ["a.txt"] * 2


def test_skipped_files_are_told_and_side_files_are_not(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("L", (8, 8)).save(tmp_path / "a-masklabel.png")
    for name in ("b.heic", "gone.txt", "notes.md", "a.npz"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", "DESKTOP.INI"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    found = listing(tmp_path)
    assert [picture.path.name for picture in found.pictures] == ["a.png"]
    assert found.skipped == ("a.npz", "b.heic", "gone.txt", "notes.md")


def test_kohya_s_folders_count_with_their_repeats(tmp_path: Path) -> None:
    for name in ("10_ohwx man", "1_hat", "regular", "x_y"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    (tmp_path / "1_hat" / "a.caption").write_text("a hat")
    found = {picture.path.parent.name: picture for picture in listing(tmp_path).pictures}
    assert {name: (picture.repeats, picture.words) for name, picture in found.items()} == {
        "10_ohwx man": (10, "ohwx man"), "1_hat": (1, "hat"),
    }  # fmt: skip
    assert found["1_hat"].caption is not None and found["10_ohwx man"].caption is None
    (alone,) = listing(tmp_path / "10_ohwx man").pictures
    assert (alone.repeats, alone.words) == (1, "ohwx man")


@pytest.mark.parametrize("name", ["a-masklabel.png", "A-masklabel.png", "a-MASKLABEL.PNG"])
def test_masks_are_found_in_any_case_and_those_of_no_picture_are_told(tmp_path: Path, name: str) -> None:
    for file in ("a.JPG", name, "b-masklabel.png"):
        Image.new("L", (8, 8)).save(tmp_path / file)
    found = listing(tmp_path)
    assert [picture.mask for picture in found.pictures] == [tmp_path / name]
    assert found.skipped == ("b-masklabel.png",)
