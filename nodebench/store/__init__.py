"""The store on disk: one locked folder per trial, and a record of each launched sweep."""

from nodebench.store.result import Result
from nodebench.store.store import Store
from nodebench.store.trial_folder import TrialFolder

__all__ = ["Result", "Store", "TrialFolder"]
