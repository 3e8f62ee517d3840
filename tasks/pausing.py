"""Pauses a platform and lets it go on; what falls due meanwhile is held, not failed."""

from __future__ import annotations

from clickpost.people import Right
from tasks import _wiring, signing_off

#: Who did it where nobody is declared: Prefect's form tells no name.
SOMEBODY = "operator:in the Prefect UI"


async def pause(platform: str, code: str, run_id: str) -> bool:
    """Pause a platform; say whether it was not yet.

    Where people are declared, raises NotAllowed for a code that is of nobody who may.
    """
    house = await _wiring.house()
    return await house.store.pause(platform, actor=await _signed(platform, code, run_id))


async def resume(platform: str, code: str, run_id: str) -> list[str] | None:
    """Let a platform go on; return the deliveries that it held, None where it was not paused.

    Where people are declared, raises NotAllowed for a code that is of nobody who may.
    """
    house = await _wiring.house()
    return await house.store.resume(platform, actor=await _signed(platform, code, run_id))


async def _signed(platform: str, code: str, run_id: str) -> str:
    house = await _wiring.house()
    if not await house.store.anybody():
        return SOMEBODY
    about = signing_off.platform_key(platform)
    return await house.store.sign_off(code, Right.CANCEL, about, run_id)
