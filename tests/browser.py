"""What Debian's Chromium makes of a video file: the last word on "browsers play it"."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")

_LOAD = """async (file) => {
    const video = document.createElement("video");
    video.muted = true;
    video.preload = "auto";
    document.body.replaceChildren(video);
    const loaded = new Promise((good) => { video.onloadeddata = () => good(""); video.onerror = () => good("error"); });
    video.src = file;
    const error = await loaded;
    return {error, duration: video.duration, width: video.videoWidth, height: video.videoHeight};
}"""
_SEEK = """async (seconds) => {
    const video = document.querySelector("video");
    const shown = new Promise((good) => video.requestVideoFrameCallback((_, frame) => good(frame.mediaTime)));
    video.currentTime = seconds;
    return await shown;
}"""


class Screen:
    """A browser with one page."""

    def __init__(self, page: Page, folder: Path) -> None:
        self._page = page
        (folder / "page.html").write_text("<!doctype html><title>video</title>")
        page.goto((folder / "page.html").as_uri())

    def load(self, video: Path) -> dict[str, Any]:
        """`{error, duration, width, height}` of a file, as a `<video>` says."""
        said: dict[str, Any] = self._page.evaluate(_LOAD, video.as_uri())
        return said

    def seek(self, seconds: float) -> float:
        """The presentation time, in seconds, of the picture that the loaded video shows there."""
        return float(self._page.evaluate(_SEEK, seconds))


@contextmanager
def screen(folder: Path) -> Iterator[Screen]:
    """Skips the test where there is no Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield Screen(browser.new_page(), folder)
        finally:
            browser.close()
