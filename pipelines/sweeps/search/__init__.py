"""What proposes the settings that are tried, one way per file; a new file needs no other edit."""

from pipelines.sweeps.search.search import SEARCHES, Proposal, Search, Tried
from vlp.core.registry import import_modules

__all__ = ["SEARCHES", "Proposal", "Search", "Tried"]

import_modules(__name__, __path__)
