"""An archive at the gateway: whoever has its link gets it until it expires, and nobody else."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx

from clickpost import exporting
from clickpost.settings import Settings
from clickpost.store import Store
from tasks import exporting as work
from tests.store.test_erasure import person


async def test_a_link_gives_its_archive_until_it_expires(
    settings: Settings, store: Store, http: httpx.AsyncClient
) -> None:
    await person(store)
    done = await work.of_subject(settings, store, "member_ann")
    link = urlsplit(work.link_of(settings, store, done.parcel)).path
    answer = await http.get(link)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert "attachment" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as made:
        assert "data/member.json" in made.namelist()
    part = await http.get(link, headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"PK\x03\x04")
    export_id, expires, mark = link.split("/")[2:]
    later = int(expires) + 3600
    for wrong in (
        f"/exports/{export_id}/{later}/{mark}",
        f"/exports/export_other/{expires}/{mark}",
        f"/exports/{export_id}/{expires}/{'0' * 64}",
        f"/exports/{export_id}/{expires}/ä",
        f"/exports/..%2F{export_id}/{expires}/{mark}",
        f"/exports/{export_id}/٣/{mark}",
        f"/exports/{export_id}/{expires}",
        "/exports",
    ):
        refused = await http.get(wrong)
        assert (refused.status_code, refused.text) == (404, "Not found.\n")
    # A link of ours whose time is over, though its file is there.
    past = exporting.place(
        settings.media_root, export_id, "member_ann", datetime.now(UTC) - timedelta(seconds=2)
    )
    done.parcel.path.rename(past.path)
    over = urlsplit(work.link_of(settings, store, past)).path
    assert (await http.get(over)).status_code == 404
    assert (await http.get(link)).status_code == 404
