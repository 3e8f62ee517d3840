"""Marks what stands out in a text: addresses, hashtags, mentions; nothing of a text is trusted."""

from __future__ import annotations

import html
import re

LINK = re.compile(
    r"https?://(?:\([^\s<>\"()]*\)|[^\s<>\"()])*(?:\([^\s<>\"()]*\)|[^\s<>\".,;:!?()\]])"
)
_TAG = re.compile(r"(?<![\w&/])(#\w+|@\w+(?:\.\w+)*)")


def marked(text: str, *, links: bool) -> str:
    """Mark hashtags and mentions outside addresses, and make links of these where that is so."""
    pieces, at = [], 0
    for found in LINK.finditer(text):
        address = html.escape(found[0])
        pieces.append(tagged(text[at : found.start()]))
        pieces.append(f'<a href="{address}">{address}</a>' if links else address)
        at = found.end()
    return "".join([*pieces, tagged(text[at:])]).replace("\n", "<br>")


def tagged(text: str) -> str:
    """Mark hashtags and mentions."""
    return _TAG.sub(r'<span class="tag">\1</span>', html.escape(text, quote=False))


def escaped(raw: bytes) -> str:
    """Return text whose facets may have cut a character in two."""
    return html.escape(raw.decode(errors="replace"), quote=False)
