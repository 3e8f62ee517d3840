"""What a run can be about, as the UI asks for it: ids, never content."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def in_order(schema: dict[str, Any]) -> None:
    """Number a form's fields as they are written: Prefect's database forgets their order."""
    for position, field in enumerate(schema.get("properties", {}).values()):
        field["position"] = position


#: What a form says of the code that it asks for; once used it is worth nothing to who reads it.
CODE = (
    "Yours, of `clickpost people code`: good once, for this alone. Never your secret: Prefect keeps"
    " what is written here."
)


def in_order_with_code(schema: dict[str, Any]) -> None:
    """Ask for the code as well; an answer without one is refused, and is no error of ours."""
    in_order(schema)
    schema["required"] = [*schema.get("required", []), "code"]


#: Of a form that waits; one that was open while people were declared answers with other fields.
FORM = ConfigDict(extra="ignore", json_schema_extra=in_order)
CODED_FORM = ConfigDict(extra="ignore", json_schema_extra=in_order_with_code)


class DeliveryChoice(BaseModel):
    """Which delivery a run is about."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=in_order)

    delivery_id: str = Field(
        title="Delivery",
        description="The delivery's id, as `clickpost posts show POST --json` prints it; for"
        " example `dlv_01jd8x3v5t6h2k9m`.",
        pattern=r"^dlv_[0-9a-z]+$",
        examples=["dlv_01jd8x3v5t6h2k9m"],
    )
