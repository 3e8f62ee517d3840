"""How a text becomes each platform's wording: counted, cut and marked up as that platform does."""

from clickpost.wording.counting import Measure, measure
from clickpost.wording.entities import Entity, Link, Mention, Tag, entities
from clickpost.wording.fitting import Wording, fit

__all__ = [
    "Entity",
    "Link",
    "Measure",
    "Mention",
    "Tag",
    "Wording",
    "entities",
    "fit",
    "measure",
]
