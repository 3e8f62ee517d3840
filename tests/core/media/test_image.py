"""Pictures: upright, in the right colours, within the bytes, and silent about their making."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageCms, ImageOps, ImageSequence

from clickpost.errors import ContentRejected
from clickpost.media import probe
from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT
from tests.core.media import _house as house

TURNED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
PICTURES = [n for n, p in load_platforms(PROJECT / "policies").items() if p.images.max]


def lying(orientation: int) -> Image.Image:
    """Return a picture that is upright once its orientation is applied."""
    turn = TURNED[orientation]
    return house.photo() if turn is None else house.photo().transpose(turn)


def wide_profile() -> bytes:
    """Return a profile in which the channels are not those of sRGB."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    raw = bytearray(lab.tobytes())
    # Swap the red and the green primary: no viewer could overlook it.
    red, green = raw.index(b"rXYZ"), raw.index(b"gXYZ")
    raw[red : red + 4], raw[green : green + 4] = b"gXYZ", b"rXYZ"
    at = raw.find(b"s\0R\0G\0B")
    while at >= 0:
        raw[at : at + 7] = b"w\0i\0d\0e"
        at = raw.find(b"s\0R\0G\0B")
    return bytes(raw).replace(b"sRGB", b"wide")


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".heic", ".gif", ".avif", ".tiff"])
def test_nothing_about_place_or_device_leaves(tmp_path: Path, suffix: str, name: str) -> None:
    if suffix == ".tiff":
        source = tmp_path / "in.tiff"
        house.photo().save(source, exif=house.telling_exif())
    else:
        source = house.telling(tmp_path / f"in{suffix}")
    assert house.MARK in source.read_bytes()
    done = house.made(source, name)
    with Image.open(done.path) as image:
        assert not image.getexif().get_ifd(0x8825)
        assert house.same(house.corners(image), house.corners(house.photo()), 40)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif"])
def test_a_compliant_picture_only_loses_its_words(tmp_path: Path, suffix: str) -> None:
    source = house.telling(tmp_path / f"in{suffix}")
    done = house.made(source, "mastodon")
    assert "metadata removed" in done.label
    assert done.path.suffix == suffix
    with Image.open(source) as before, Image.open(done.path) as after:
        assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif"])
def test_a_silent_compliant_picture_passes_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"in{suffix}"
    house.photo().save(source)
    done = house.made(source, "mastodon")
    assert done.path.read_bytes() == source.read_bytes()
    assert "as it is" in done.label


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif"])
@pytest.mark.parametrize("name", ["mastodon", "instagram"])
def test_every_orientation_survives(
    tmp_path: Path, suffix: str, orientation: int, name: str
) -> None:
    source = house.telling(tmp_path / f"in{suffix}", lying(orientation), orientation)
    done = house.made(source, name)
    assert (done.width, done.height) == (400, 300)
    with Image.open(done.path) as image:
        upright = ImageOps.exif_transpose(image)
        assert upright.size == (400, 300)
        assert house.same(house.corners(upright), house.corners(house.photo()), 40)


def test_the_second_picture_of_a_phone_goes_with_its_place(tmp_path: Path) -> None:
    first, second = house.photo(), house.photo(200, 150)
    source = tmp_path / "in.jpg"
    tail = house.jpeg(second, exif=house.telling_exif(), comment=house.MARK)
    source.write_bytes(house.jpeg(first) + tail)
    done = house.made(source, "mastodon")
    assert done.path.read_bytes() == house.jpeg(first)


def test_a_progressive_picture_keeps_all_its_scans(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    house.photo().save(source, progressive=True, exif=house.telling_exif(), quality=90)
    done = house.made(source, "mastodon")
    with Image.open(source) as before, Image.open(done.path) as after:
        assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_colour_profile_stays_where_it_may(tmp_path: Path, suffix: str) -> None:
    profile = wide_profile()
    source = tmp_path / f"in{suffix}"
    house.photo().save(source, icc_profile=profile, exif=house.telling_exif())
    with Image.open(house.made(source, "mastodon").path) as image:
        assert image.info["icc_profile"] == profile
    small = house.target("mastodon", pixels=20_000)
    with Image.open(house.made(source, small).path) as image:
        assert image.info["icc_profile"] == profile


def test_a_colour_profile_becomes_srgb_where_it_must(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    house.photo().save(source, icc_profile=wide_profile(), quality=95)
    assert probe(source).colour != "srgb"
    with Image.open(house.made(source, "instagram").path) as image:
        assert "icc_profile" not in image.info
        red, green = house.corners(image)[:2]
    # In that profile red means green.
    assert red[1] > red[0] + 80
    assert green[0] > green[1] + 80


@pytest.mark.parametrize("suffix", [".jpg", ".tiff"])
def test_inks_become_light(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"in{suffix}"
    house.photo(mode="CMYK").save(source, quality=95)
    for name in PICTURES:
        with Image.open(house.made(source, name).path) as image:
            assert image.mode == "RGB"
            assert house.same(house.corners(image), house.corners(house.photo()), 40)


def test_a_grey_profile_never_says_what_colours_mean(tmp_path: Path) -> None:
    raw = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    raw[16:20] = b"GRAY"
    source = tmp_path / "in.png"
    house.photo(mode="L").save(source, icc_profile=bytes(raw))
    small = house.target("mastodon", pixels=20_000)
    with Image.open(house.made(source, small).path) as image:
        assert image.mode == "RGB"
        assert "icc_profile" not in image.info


@pytest.mark.parametrize("colour", [0, 2])
def test_sixteen_bits_become_eight(tmp_path: Path, colour: int) -> None:
    sample = (0x8000).to_bytes(2, "big") * (3 if colour else 1)
    rows = (b"\0" + sample * 400) * 400
    source = tmp_path / "in.png"
    source.write_bytes(house.png(400, 400, 16, colour, rows))
    assert probe(source).bit_depth == 16
    for name in PICTURES:
        with Image.open(house.made(source, name).path) as image:
            assert house.near(house.corners(image)[0], (128, 128, 128), 4)
            assert image.format == "JPEG"


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA"])
@pytest.mark.parametrize("colour", ["any", "srgb"])
def test_transparency_becomes_paper(tmp_path: Path, mode: str, colour: str) -> None:
    picture = Image.new("RGBA", (400, 400), (10, 10, 10, 0))
    picture.paste((200, 30, 30, 255), (100, 100, 300, 300))
    source = tmp_path / "in.png"
    more = {"icc_profile": wide_profile()} if mode != "LA" else {}
    if mode == "P":
        flat = picture.convert("RGB").quantize(4, dither=Image.Dither.NONE)
        flat.save(source, transparency=flat.getpixel((0, 0)), **more)
    else:
        picture.convert(mode).save(source, **more)
    done = house.made(source, house.target("instagram", colour=colour))
    with Image.open(done.path) as image:
        assert house.near(house.corners(image)[0], (255, 255, 255), 4)


def moving(
    path: Path, frames: int = 4, size: tuple[int, int] = (160, 120), **about: object
) -> Path:
    """Save an animation whose frames last differently long."""
    pictures = [house.photo(*size).rotate(90 * n) for n in range(frames)]
    times = [100 + 50 * n for n in range(frames)]
    rest = pictures[1:]
    pictures[0].save(path, save_all=True, append_images=rest, duration=times, **about)
    return path


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".avif"])
def test_of_what_moves_the_first_picture_is_used_and_it_is_said(
    tmp_path: Path, suffix: str
) -> None:
    done = house.made(moving(tmp_path / f"in{suffix}"), "bluesky")
    assert not probe(done.path).animated
    assert any("first picture" in note for note in done.notes)
    with Image.open(done.path) as image:
        assert house.same(house.corners(image), house.corners(house.photo(160, 120)), 60)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_what_moves_still_moves_where_it_may(tmp_path: Path, suffix: str) -> None:
    source = moving(tmp_path / f"in{suffix}", loop=0)
    assert house.made(source, "mastodon").path.read_bytes() == source.read_bytes()
    done = house.made(source, house.target("mastodon", pixels=5_000))
    with Image.open(done.path) as image:
        times = [one.info["duration"] for one in ImageSequence.Iterator(image)]
        assert times == [100, 150, 200, 250]
        assert image.info["loop"] == 0
        assert image.width * image.height <= 5_000


def test_an_animation_that_plays_once_plays_once(tmp_path: Path) -> None:
    source = moving(tmp_path / "in.gif", comment=house.MARK)
    done = house.made(source, house.target("mastodon", pixels=5_000))
    with Image.open(done.path) as image:
        assert "loop" not in image.info
        assert image.n_frames == 4


def test_an_animation_gets_within_its_bytes(tmp_path: Path) -> None:
    source = moving(tmp_path / "in.gif")
    limit = source.stat().st_size // 3
    assert house.made(source, house.target("mastodon", bytes=limit)).bytes <= limit


@pytest.mark.parametrize("limit", [150_000, 40_000, 8_000])
def test_bytes_are_reached_by_quality_and_then_by_size(tmp_path: Path, limit: int) -> None:
    source = tmp_path / "in.png"
    Image.effect_noise((700, 700), 80).convert("RGB").save(source)
    done = house.made(source, house.target("bluesky", bytes=limit))
    assert limit / 3 < done.bytes <= limit


@pytest.mark.parametrize("size", [(1200, 300), (300, 1200), (60, 40), (3000, 2999), (1, 1)])
def test_a_shape_outside_the_limits_is_padded_and_never_cut(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    source = tmp_path / "in.png"
    Image.new("RGB", size, "#c02020").save(source)
    done = house.made(source, "instagram")
    assert 0.795 <= done.width / done.height <= 1.915
    assert 320 <= done.width <= 1440
    with Image.open(done.path) as image:
        middle = image.getpixel((image.width // 2, image.height // 2))
        assert house.near(middle, (192, 32, 32))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(997, 809), (1003, 1001), (640, 333)])
def test_a_limit_of_pixels_is_never_passed_by_rounding(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    source = tmp_path / "in.png"
    Image.new("RGB", size, "#c02020").save(source)
    for limit in range(40_000, 41_000, 101):
        done = house.made(source, house.target("mastodon", pixels=limit))
        assert done.width * done.height <= limit


def test_a_heic_of_several_pictures_shows_the_main_one(tmp_path: Path) -> None:
    import pillow_heif

    heif = pillow_heif.from_pillow(Image.new("RGB", (320, 400), "#20c020"))
    heif.add_from_pillow(house.photo())
    source = tmp_path / "in.heic"
    heif.save(source, primary_index=1, quality=90)
    done = house.made(source, "bluesky")
    assert (done.width, done.height) == (400, 300)


def test_a_lab_or_broken_profile_is_no_crash(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    house.photo().save(source, icc_profile=b"no profile at all")
    assert house.made(source, "instagram").mime == "image/jpeg"
    lab = tmp_path / "in.tiff"
    Image.new("LAB", (400, 400), (120, 20, 20)).save(lab)
    done = house.outcome(lab, house.target("bluesky"))["bluesky"]
    assert isinstance(done, ContentRejected) or done.mime == "image/jpeg"  # type: ignore[attr-defined]
