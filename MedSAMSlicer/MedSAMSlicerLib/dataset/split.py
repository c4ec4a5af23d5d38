"""The split of a site's patients: who is trained on, who is validated on, and who is kept for the report."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

SHARES = (0.7, 0.15, 0.15)


def split_patients(
    patients: Collection[str],
    shares: tuple[float, float, float] = SHARES,
    seed: int = 0,
    *,
    never_test: Collection[str] = (),
    fixed: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Deal patients to train, validation and test.

    Deterministic: the order in which they are dealt depends on the seed and their pseudonyms alone. Of three patients
    or more, validation and test get at least one each (unless their share is 0); of two, one is for validation.

    :param shares: of train, validation and test, which sum up to 1.
    :param never_test: patients whom a model was trained on, and who can't be in the test any more.
    :param fixed: patient -> split, patients that stay where they are and count as dealt.
    :return: patient -> split, of all patients.
    :raises ValueError: if the shares are not such.
    """
    if len(shares) != 3 or min(shares) < 0 or not abs(sum(shares) - 1) <= 1e-6 or not shares[0]:
        text = ", ".join(f"{share:g}" for share in shares)
        raise ValueError(f"The shares {text} can't be dealt: give train, validation and test, which sum up to 1.")
    fixed = fixed or {}
    order = sorted(patients, key=lambda patient: hashlib.blake2b(f"{seed} {patient}".encode()).digest())
    validation = _count(len(order), shares[1], least=2)
    test = min(_count(len(order), shares[2], least=3), max(len(order) - 1 - validation, 0))
    dealt = dict(fixed)
    for split, count, barred in (("test", test, never_test), ("validation", validation, ())):
        free = [patient for patient in order if patient not in dealt and patient not in barred]
        missing = max(count - list(fixed.values()).count(split), 0)
        dealt |= dict.fromkeys(free[:missing], split)
    return {patient: dealt.get(patient, "train") for patient in order}


def _count(patients: int, share: float, least: int) -> int:
    """Compute how many patients a split gets: at least one if there are at least so many patients."""
    return max(round(patients * share), 1) if share and patients >= least else 0
