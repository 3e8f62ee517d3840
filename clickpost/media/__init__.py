"""Media: probe what a file is, plan the fewest renditions, make them, look at them again."""

from clickpost.media.cache import Cache
from clickpost.media.making import Rendition, renditions
from clickpost.media.plan import Plan, Planned, Profile, Target, plan
from clickpost.media.probe import Probed, probe
from clickpost.media.rules import faults_of

__all__ = [
    "Cache",
    "Plan",
    "Planned",
    "Probed",
    "Profile",
    "Rendition",
    "Target",
    "faults_of",
    "plan",
    "probe",
    "renditions",
]
