"""What a run can be about, as the UI asks for it: ids, never content."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DeliveryChoice(BaseModel):
    """Which delivery a run is about."""

    model_config = ConfigDict(extra="forbid")

    delivery_id: str = Field(
        title="Delivery",
        description="The delivery's id, as `clickpost posts show POST --json` prints it; for"
        " example `dlv_01jd8x3v5t6h2k9m`.",
        pattern=r"^dlv_[0-9a-z]+$",
        examples=["dlv_01jd8x3v5t6h2k9m"],
    )
