"""Tokens, presets, datasets: what the verbs about them promise."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from tests.sample_jobs import Clock
from videoannotator.errors import Conflict
from videoannotator.jobs import (
    Dataset,
    Preset,
    Token,
    new_id,
)
from videoannotator.store.sqlite import SqliteStore


async def test_tokens_are_found_by_hash_and_revoked_for_good(store: SqliteStore, clock: Clock) -> None:
    """The first revocation is the one that counts."""
    made = datetime.fromtimestamp(clock.now, UTC)
    token = Token(id=new_id("tok"), name="laptop", scope="write", created_at=made, expires_at=made)
    await store.add_token(token, "hash-of-it")

    assert await store.token_by_hash("hash-of-it") == token
    assert await store.token_by_hash("another") is None
    await store.revoke_token(token.id)
    clock.now += 5
    await store.revoke_token(token.id)

    assert await store.tokens() == (msgspec.structs.replace(token, revoked_at=made),)


async def test_presets_are_stored_replaced_and_removed(store: SqliteStore) -> None:
    """Under the same name there is one, the last."""
    preset = Preset(name="mine", version="1", description="d", pipelines={"face_analysis": {"rate": 2.0}})
    newer = msgspec.structs.replace(preset, version="2")

    await store.put_preset(preset)
    await store.put_preset(newer)

    assert await store.presets() == (newer,)
    await store.remove_preset("mine")
    assert await store.presets() == ()


async def test_a_dataset_has_its_name_for_itself(store: SqliteStore, clock: Clock) -> None:
    """Two of one name could not be told apart."""
    made = datetime.fromtimestamp(clock.now, UTC)
    dataset = Dataset(id=new_id("ds"), name="pilot", base_path=Path("videos"), created_at=made)
    await store.add_dataset(dataset)

    with pytest.raises(Conflict) as refused:
        await store.add_dataset(msgspec.structs.replace(dataset, id=new_id("ds")))

    assert refused.value.code == "DATASET_EXISTS"
    assert await store.dataset(dataset.id) == dataset
    assert await store.datasets() == (dataset,)
    await store.remove_dataset(dataset.id)
    assert await store.datasets() == ()
