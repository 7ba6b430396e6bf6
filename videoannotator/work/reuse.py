"""One stage and the cache: is its result there already, and is it to be remembered."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from videoannotator.artifacts import Artifacts
from videoannotator.errors import StorageTrouble
from videoannotator.jobs import Output, StageResult
from videoannotator.logs import get_logger
from videoannotator.work.cache import Cache

log = get_logger(__name__)


class Reuse:
    def __init__(
        self,
        cache: Cache | None,
        artifacts: Artifacts,
        where: tuple[str, str, int],
        hash_of_video: Callable[[], Awaitable[str | None]],
    ) -> None:
        """`cache` is None where nothing is taken from it or kept in it; `where` is job, pipeline, token."""
        self._cache = cache
        self._artifacts = artifacts
        self._where = where
        self._hash_of_video = hash_of_video

    async def take(self, fingerprint: str | None) -> StageResult | None:
        """
        The result of earlier, equal work, its files sealed as those of this attempt; None where it is to be computed,
        as always where the fingerprint is None.

        The video is waited for only where its hash would decide: new work begins at once.
        """
        if self._cache is None or fingerprint is None:
            return None
        if not await asyncio.to_thread(self._cache.may_have, fingerprint):
            return None
        digest = await self._hash_of_video()
        if digest is None:
            return None
        return await asyncio.to_thread(self._take, self._cache, fingerprint, digest)

    async def keep(self, fingerprint: str | None, result: StageResult) -> None:
        """After publication. Whatever goes wrong here costs nobody a result."""
        if self._cache is None or fingerprint is None or (digest := await self._hash_of_video()) is None:
            return
        results = self._artifacts.results(self._where[0])
        await asyncio.to_thread(self._cache.keep, fingerprint, digest, result, results)

    def _take(self, cache: Cache, fingerprint: str, digest: str) -> StageResult | None:
        try:
            folder = self._artifacts.begin(*self._where)
            result = cache.take(fingerprint, digest, folder)
            if result is not None and self._is_whole(result):
                return msgspec.structs.replace(result, cached=True)
        except StorageTrouble as trouble:
            log.warning("the cache could not be used", reason=str(trouble))
            result = None
        self._artifacts.abandon(*self._where)
        if result is not None:
            log.warning("an entry of the cache was damaged and is gone", fingerprint=fingerprint)
            cache.drop(fingerprint, digest)
        return None

    def _is_whole(self, result: StageResult) -> bool:
        outputs = msgspec.convert(result.artifacts, list[Output], from_attributes=True)
        return self._artifacts.seal(*self._where, outputs) == result.artifacts
