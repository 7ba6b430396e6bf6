"""The built-in page as somebody uses it, in Debian's Chromium: every click, and what a hostile name does to it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.browser import CHROMIUM
from tests.clips import Clips
from tests.server import ADMIN, Served, serving

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not here")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        await started.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hosting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server with a preset that takes long, and with something in the place of the browser client."""
    folder = tmp_path_factory.mktemp("hosting")
    (folder / "viewer").mkdir()
    (folder / "viewer" / "index.html").write_text("<!doctype html><title>the client</title>")
    async with serving(folder, viewer_dir=folder / "viewer") as served:
        slow = {"behaves": {"steps": 3000, "step_seconds": 0.02}}
        await served.http.put("/api/v1/presets/fast", json={"pipelines": {"behaves": {}}})
        await served.http.put("/api/v1/presets/slow", json={"pipelines": slow})
        yield served


async def opened(browser: Browser, server: Served, complaints: list[str]) -> Page:
    page = await browser.new_page(base_url=server.url)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if "Content Security" in message.text else None)
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    await page.goto("/")
    await page.fill("#key", ADMIN)
    await page.press("#key", "Enter")
    await expect(page.locator("#state")).to_have_text("live")
    return page


async def test_somebody_submits_a_video_sees_it_done_and_downloads_the_results(
    browser: Browser, hosting: Served, clips: Clips
) -> None:
    """Live, without a reload, and with a ticket in the place of the key in the address of the download."""
    complaints: list[str] = []
    page = await opened(browser, hosting, complaints)
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))

    await page.select_option("#preset", "fast")
    await page.set_input_files("#files", clips.path("h264.mp4"))
    await expect(page.locator(".completed .name").first).to_have_text("h264.mp4", timeout=20_000)
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download").first.click()
    beginning = Path(await (await download.value).path()).read_bytes()[:4]
    await page.close()

    assert beginning == b"PK\x03\x04"
    assert complaints == []
    assert ADMIN not in "".join(addresses)


async def test_somebody_cancels_a_job(browser: Browser, hosting: Served, clips: Clips) -> None:
    """The one click that must work when it matters."""
    complaints: list[str] = []
    page = await opened(browser, hosting, complaints)

    await page.select_option("#preset", "slow")
    await page.set_input_files("#files", clips.path("h264.mp4"))
    await page.locator(".running").get_by_role("button", name="Cancel").click()
    await expect(page.locator(".cancelled").first).to_be_visible(timeout=20_000)
    await page.close()

    assert complaints == []


async def test_a_hostile_name_stays_text(browser: Browser, hosting: Served, clips: Clips, tmp_path: Path) -> None:
    """While it is sent it is the browser's own, not cleaned by anybody."""
    hostile = tmp_path / "<img src=x onerror=alert(1)>.mp4"
    hostile.write_bytes(b"no video at all")
    complaints: list[str] = []
    page = await opened(browser, hosting, complaints)

    await page.set_input_files("#files", hostile)
    said = page.locator("#say")
    await expect(said).to_contain_text("<img src=x onerror=alert(1)>.mp4")
    images = await page.locator("img").count()
    await page.close()

    assert images == 0
    assert complaints == []


async def test_a_wrong_key_is_told_and_asked_for_again(browser: Browser, hosting: Served) -> None:
    """Not a page that stays empty."""
    page = await browser.new_page(base_url=hosting.url)
    await page.goto("/")
    await page.fill("#key", "va_this_is_nobodys_key_at_all")
    await page.press("#key", "Enter")

    await expect(page.locator("#say")).to_contain_text("Unauthorized")
    await expect(page.locator("#enter")).to_be_visible()
    await page.close()


async def test_a_key_goes_into_the_browser_client_and_into_nothing_else(browser: Browser, hosting: Served) -> None:
    """The two entries that the client reads, and no address of any request with the key in it."""
    page = await browser.new_page(base_url=hosting.url)
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))

    await page.goto(f"/viewer-connect#{ADMIN}")
    await page.wait_for_url("**/viewer/")
    stored = await page.evaluate("({...localStorage})")
    await page.goto("/viewer-connect#<img src=x onerror=alert(1)>")
    await expect(page.locator("#wrong")).to_have_text("The link holds no key.")
    shown = page.url
    await page.close()

    assert stored == {"videoannotator_api_url": hosting.url, "videoannotator_api_token": ADMIN}
    assert ADMIN not in "".join(addresses).replace(f"/viewer-connect#{ADMIN}", "")
    assert shown.endswith("/viewer-connect")
