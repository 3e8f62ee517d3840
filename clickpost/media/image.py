"""Makes image renditions: turned upright, in the right colours, within the bytes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageCms, ImageOps, ImageSequence

from clickpost.media.plan import Profile
from clickpost.media.probe import READERS, Probed, refused
from clickpost.media.strip import stripped

_QUALITIES = (90, 84, 78, 70, 60, 50)
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_WRITERS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF"}


def make(probed: Probed, profile: Profile, out: Path) -> None:
    """Write the rendition; raise ContentRejected where the bytes cannot be reached."""
    if profile.how == "as it is":
        out.write_bytes(probed.path.read_bytes())
    elif profile.how == "metadata removed":
        out.write_bytes(stripped(probed.path.read_bytes(), probed.format, probed.orientation))
    else:
        out.write_bytes(_encoded(probed, profile))


def _encoded(probed: Probed, profile: Profile) -> bytes:
    try:
        with Image.open(probed.path, formats=READERS) as image:
            if profile.animated:
                return _animation(image, profile)
            picture, icc = _coloured(ImageOps.exif_transpose(image), profile)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise refused("file", "a whole image", f"a broken one ({type(error).__name__})") from None
    return _within(_placed(picture, profile), icc, profile)


def _coloured(image: Image.Image, profile: Profile) -> tuple[Image.Image, bytes | None]:
    """Return the picture in 8-bit RGB(A) and the colour profile that goes along."""
    raw = image.info.get("icc_profile")
    alpha = image.has_transparency_data
    if image.mode.startswith("I"):
        # 16 bits of grey: scale to 8, for Pillow's own conversion would clip.
        image, alpha = image.convert("I").point(lambda value: value / 256).convert("L"), False
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode not in ("RGB", "RGBA", "CMYK") and (alpha or image.mode != "L"):
        image = image.convert("RGBA" if alpha else "RGB")
    # A profile for grey or ink says nothing about RGB.
    if raw and (grey or image.mode == "CMYK" or profile.colour == "srgb"):
        image, raw = _to_srgb(image, raw), None
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGB")
    if image.mode == "RGBA" and profile.format == "jpeg":
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image.getchannel("A"))
        image = paper
    image.info = {}
    return image, raw


def _to_srgb(image: Image.Image, raw: bytes) -> Image.Image:
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(raw))
        if source.profile.xcolor_space.strip() == "GRAY" and image.mode != "L":
            return image.convert(mode)
        done = ImageCms.profileToProfile(image, source, _SRGB, outputMode=mode)
    except (ImageCms.PyCMSError, OSError):
        return image.convert(mode)
    return done if done is not None else image


def _placed(image: Image.Image, profile: Profile) -> Image.Image:
    inner = (profile.inner_width, profile.inner_height)
    if image.size != inner:
        image = image.resize(inner, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if inner == (profile.width, profile.height):
        return image
    canvas = Image.new(image.mode, (profile.width, profile.height), "white")
    canvas.paste(image, ((profile.width - inner[0]) // 2, (profile.height - inner[1]) // 2))
    return canvas


def _within(image: Image.Image, icc: bytes | None, profile: Profile) -> bytes:
    """Encode at the best quality that fits the bytes, then smaller and smaller."""
    for _ in range(12):
        for quality in _QUALITIES if profile.format in ("jpeg", "webp") else _QUALITIES[:1]:
            data = _written(image, icc, profile.format, quality)
            if profile.bytes is None or len(data) <= profile.bytes:
                return data
        image = _smaller(image)
    raise refused("image.bytes", f"at most {profile.bytes}", str(len(data)))


def _written(image: Image.Image, icc: bytes | None, format_: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    more = {"progressive": True, "optimize": True} if format_ == "jpeg" else {}
    if format_ == "jpeg" and quality >= 84:
        more["subsampling"] = 0  # type: ignore[assignment]
    image.info = {}
    image.save(buffer, _WRITERS[format_], quality=quality, icc_profile=icc, **more)
    return buffer.getvalue()


def _animation(image: Image.Image, profile: Profile) -> bytes:
    """Return the animation within its bytes, every frame with its own time."""
    frames, times = [], []
    for frame in ImageSequence.Iterator(image):
        frame.load()  # Some formats know a frame's time only then.
        times.append(int(frame.info.get("duration", 100)))
        upright = _coloured(ImageOps.exif_transpose(frame), replace(profile, colour="srgb"))[0]
        frames.append(_placed(upright, profile))
    # An animation that says nothing plays once.
    loop = {"loop": int(image.info["loop"])} if "loop" in image.info else {}
    for _ in range(12):
        data = _gif(frames, times, loop)
        if profile.bytes is None or len(data) <= profile.bytes:
            return data
        frames = [_smaller(frame) for frame in frames]
    raise refused("image.bytes", f"at most {profile.bytes}", str(len(data)))


def _gif(frames: list[Image.Image], times: list[int], loop: dict[str, int]) -> bytes:
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=times,
        disposal=2,
        **loop,
    )
    return buffer.getvalue()


def _smaller(image: Image.Image) -> Image.Image:
    size = (max(1, image.width * 4 // 5), max(1, image.height * 4 // 5))
    return image.resize(size, Image.Resampling.LANCZOS)
