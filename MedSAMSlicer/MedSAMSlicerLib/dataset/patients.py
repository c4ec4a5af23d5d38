"""Pseudonyms: the same patient gets the same one, and nobody who has the dataset alone can tell who it is."""

from __future__ import annotations

import hashlib
import json
import secrets
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from MedSAMSlicerLib.dataset.case import is_patient
from MedSAMSlicerLib.store.folder import replacing

_KEY_BYTES = 32


@dataclass
class Pseudonyms:
    """Remember which pseudonyms were given, by a keyed hash of the site's own identifiers.

    They lie in a file of their own, ``patients.key``, which stays at the site: short identifiers can be guessed by
    whoever has the key. The dataset is complete without it, only cases that are added later are not grouped with those
    of the same patient.
    """

    path: Path
    key: str = field(default_factory=lambda: secrets.token_hex(_KEY_BYTES))
    given: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Pseudonyms:
        """Read the file, or begin a new one where there is none.

        :raises ValueError: if the file is damaged.
        """
        if not path.is_file():
            return cls(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = cls(path, str(content["key"]), dict(content["given"]))
            if len(bytes.fromhex(found.key)) != _KEY_BYTES or not all(map(is_patient, found.given.values())):
                raise ValueError("its key or a pseudonym is none of ours")
            return found
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(
                f"{path} is damaged: restore it from a backup, or delete it; then patients that come again get new "
                "pseudonyms."
            ) from error

    def of(self, identifier: str) -> str | None:
        """Return the pseudonym that an identifier was given, None if it has none."""
        return self.given.get(self._hash(identifier))

    def following(self, number: int) -> str:
        """Make a pseudonym of this number or a later one that nobody was given."""
        return f"P{max([number, *(int(pseudonym[1:]) + 1 for pseudonym in self.given.values())]):04d}"

    def give(self, identifier: str, pseudonym: str) -> None:
        """Give a pseudonym to an identifier, and write the file."""
        self.given[self._hash(identifier)] = pseudonym
        with replacing(self.path) as draft:
            draft.write_text(json.dumps({"key": self.key, "given": self.given}, indent=2) + "\n", encoding="utf-8")

    def _hash(self, identifier: str) -> str:
        # The same name may be spelled with composed or combining accents.
        text = unicodedata.normalize("NFC", identifier.strip())
        return hashlib.blake2b(text.encode(), key=bytes.fromhex(self.key), digest_size=16).hexdigest()
