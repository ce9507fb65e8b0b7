"""What the commands about this machine do: its data, its store and those of others, its health."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nodebench.cleaning import Survey, Wish
from nodebench.cleaning import survey as survey_store
from nodebench.data_settings import DATASETS, Dataset
from nodebench.doctor import Case, Finding, examine
from nodebench.errors import InputError, unknown
from nodebench.launches import remember, require_name
from nodebench.merge import Merged, require_store
from nodebench.merge import merge as merge_store
from nodebench.places import data_root
from nodebench.store import Store
from nodebench.sweep import Sweep

if TYPE_CHECKING:
    from nodebench.data.load import Census


def merge(
    sweep: Sweep, store: Store, folders: Sequence[Path], *, replace_other: bool = False
) -> list[Merged]:
    """Takes a sweep's trials over from other machines' stores; returns what came of each.

    Raises:
        StoreError: if a folder is no store, before anything is copied, or cannot be read; or if
            another file has the sweep's name, which it is not to `replace_other`.
    """
    require_name(sweep, store, replace=replace_other)
    others = [require_store(folder, store) for folder in folders]
    remember(sweep, store)
    return [merge_store([trial.id for trial in sweep.trials], other, store) for other in others]


def survey(store: Store, wish: Wish) -> Survey:
    """What can be cleared away of a store, and what of it is wished to; removes nothing."""
    return survey_store(store, wish, sorted(Path("sweeps").glob("*.yaml")))


def doctor(
    store: Store, sweep: Sweep | None = None, *, with_ray: bool = False
) -> Iterator[tuple[str, Finding]]:
    """Checks whether this machine is ready, by name and finding; `with_ray` starts Ray for it."""
    return examine(Case(store, data_root(), sweep, with_ray))


def data_sets(names: Sequence[str]) -> list[Dataset]:
    """The data sets of these names, as they are by default.

    Raises:
        InputError: with every name that is none.
    """
    wrong = [unknown(name, "data set", DATASETS) for name in names if name not in DATASETS]
    if wrong:
        raise InputError("\n".join(wrong))
    return [DATASETS[name](name=name) for name in dict.fromkeys(names)]


def fetch(data_set: Dataset) -> Census:
    """Downloads a data set if it is missing, verifies it and counts its samples.

    Raises:
        DataError: if it cannot be downloaded, or is damaged.
    """
    from nodebench.data.load import census

    return census(data_set, data_root())


def open_mlflow(store: Store) -> None:
    """Sees that MLflow can be read, its file made, and put right after the store was moved.

    Raises:
        TrackingError: if it cannot.
    """
    from nodebench.mlflow_access import client_for

    client_for(store)
