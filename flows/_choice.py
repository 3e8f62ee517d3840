"""What a run can be about, as the UI asks for it: ids, never content."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

#: What a form says of the code that it asks for; once used it is worth nothing to who reads it.
CODE = (
    "Yours, from `clickpost people code`: good once, for this only, some minutes long. Never your"
    " personal secret: Prefect keeps what is written here."
)


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
