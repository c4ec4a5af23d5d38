"""Embeddings on disk: the same again or none, within a budget, whatever happened to the files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.model import build_model
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.embedding_store import EmbeddingStore

SHAPE = (4, 3, 5)


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore(tmp_path / "embeddings")


def key(number: int) -> bytes:
    return bytes([number]) * 20


def values(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)


def used_in_turn(store: EmbeddingStore) -> None:
    """Set the times of use apart, in the order of the keys."""
    for number, path in enumerate(sorted(store.folder.iterdir())):
        os.utime(path, (number, number))


def test_another_session_finds_what_was_kept_in_half_precision(store):
    assert store.get(key(1)) is None
    store.put(key(1), values(1))
    store.put(key(2), values(2))
    found = EmbeddingStore(store.folder).get(key(1))
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, values(1).astype(np.float16))
    assert len(list(store.folder.iterdir())) == 2


def test_every_single_damaged_byte_is_noticed_and_the_file_deleted(store):
    store.put(key(1), values(1))
    (path,) = store.folder.iterdir()
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert store.get(key(1)) is None
        assert not path.exists()


@pytest.mark.parametrize("left", [0, 10, 40, -1])
def test_a_file_that_a_crash_cut_short_is_noticed(store, left):
    store.put(key(1), values(1))
    (path,) = store.folder.iterdir()
    path.write_bytes(path.read_bytes()[:left])
    assert store.get(key(1)) is None


def test_a_file_under_another_name_is_not_taken_for_that_slice(store):
    store.put(key(1), values(1))
    (path,) = store.folder.iterdir()
    path.rename(path.with_name(f"{key(2).hex()}{path.suffix}"))
    assert store.get(key(2)) is None


@pytest.mark.parametrize("shape", [(4, 3, 6), (0, 0, 0), (2**31, 2**31, 2**31)])
def test_a_file_that_is_forged_with_the_right_checksum_is_no_embedding(store, shape):
    store.put(key(1), values(1))
    (path,) = store.folder.iterdir()
    content = path.read_bytes()
    body = np.array(shape, "<u4").tobytes() + content[-2 * values(1).size :]
    path.write_bytes(content[: -len(body) - 16] + hashlib.blake2b(body, key=key(1), digest_size=16).digest() + body)
    assert store.get(key(1)) is None
    assert list(store.folder.iterdir()) == []


def test_an_embedding_of_another_shape_is_made_anew(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    predictor = Predictor(build_model("tiny"), device="cpu")
    store = EmbeddingStore(tmp_path)
    expected = EmbeddingCache().embedding(predictor, image)
    store.put(EmbeddingCache.key(predictor, image), values(1))
    found = EmbeddingCache(store=store).embedding(predictor, image)
    assert (found.tensor == expected.tensor).all()


def test_the_least_recently_used_leave_when_the_budget_is_full(store):
    for number in range(3):
        store.put(key(number), values(number))
    store.budget = store.nbytes
    used_in_turn(store)
    assert store.get(key(0)) is not None
    store.put(key(3), values(3))
    assert [store.get(key(number)) is not None for number in range(4)] == [True, False, True, True]
    assert store.nbytes <= store.budget


def test_what_a_crash_left_half_written_counts_and_leaves_first(store):
    store.put(key(1), values(1))
    store.budget = 2 * store.nbytes
    part = store.folder / "tmp1.embedding-part"
    part.write_bytes(bytes(store.nbytes))
    os.utime(part, (0, 0))
    # Of the process that crashed, the next one finds it.
    store = EmbeddingStore(store.folder, store.budget)
    store.put(key(2), values(2))
    assert not part.exists()
    assert store.get(key(1)) is not None
    assert store.get(key(2)) is not None


def test_embeddings_are_removed_and_other_files_left_alone(store):
    store.put(key(1), values(1))
    (store.folder / "notes.txt").write_text("mine")
    store.clear()
    assert [path.name for path in store.folder.iterdir()] == ["notes.txt"]
    assert store.get(key(1)) is None


def test_values_beyond_half_precision_or_the_budget_are_left_out(store):
    store.put(key(1), np.full(SHAPE, 1e6, dtype=np.float32))
    store.budget = 10
    store.put(key(2), values(2))
    assert store.get(key(1)) is None
    assert store.get(key(2)) is None


def test_a_folder_that_cant_be_written_to_keeps_nothing_and_disturbs_nobody(tmp_path):
    (tmp_path / "file").write_text("no folder")
    store = EmbeddingStore(tmp_path / "file")
    store.put(key(1), values(1))
    assert store.get(key(1)) is None
    assert store.nbytes == 0


def test_a_case_that_is_opened_again_is_not_encoded_again_and_gives_the_same_masks(tmp_path, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    predictor = Predictor(build_model("tiny"), device="cpu")
    first, _ = EmbeddingCache(store=EmbeddingStore(tmp_path)).prediction(predictor, image, [Box(5, 5, 30, 30)])
    encode = Predictor.encode
    monkeypatch.setattr(Predictor, "encode", lambda *given: pytest.fail("The slice was encoded again."))
    second, _ = EmbeddingCache(store=EmbeddingStore(tmp_path)).prediction(predictor, image, [Box(5, 5, 30, 30)])
    np.testing.assert_allclose(second, first, atol=0.01)
    monkeypatch.setattr(Predictor, "encode", encode)
    changed = image.copy()
    changed[0, 0] ^= 1
    EmbeddingCache(store=EmbeddingStore(tmp_path)).embedding(predictor, changed)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_folder_is_not_looked_through_for_every_embedding(tmp_path, monkeypatch):
    looks = []
    files = EmbeddingStore._files
    monkeypatch.setattr(EmbeddingStore, "_files", lambda store: looks.append(1) or files(store))
    values = np.zeros((2, 4, 4), dtype=np.float32)
    store = EmbeddingStore(tmp_path, budget=1000)
    for number in range(4):
        store.put(bytes([number]), values)
    assert len(looks) == 1
    # Full: now it matters what was used least.
    for number in range(4, 30):
        store.put(bytes([number]), values)
    assert EmbeddingStore(tmp_path).nbytes <= 1000
