"""The stem player's page, used as a person uses it, in a real Chromium."""

import base64
import shutil
import threading
from unittest import mock

import numpy as np
import pytest
from player_server import running, wait_for
from process import ROOT

from data_pipeline import audio
from data_pipeline.audio_writer import write_wav
from experiments import recordings
from experiments.playing import server
from experiments.separating.output import Output, parse_stems
from experiments.separating.recording import separate_file
from sccunet import runs
from sccunet.separation import Separator

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra test")

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _CHROMIUM, reason="needs Chromium: apt-get install chromium"),
]
_PATIENCE = 300_000  # ms
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

_TAP = (ROOT / "tests" / "player_tap.js").read_text()


@pytest.fixture(scope="module", autouse=True)
def served(tmp_path_factory):
    """The page's files with one more: Playwright does not answer in place of a server for it."""
    folder = tmp_path_factory.mktemp("page") / "static"
    shutil.copytree(server.PAGE, folder)
    shutil.copy(ROOT / "tests" / "player_tap_worklet.js", folder / "tap.js")
    with mock.patch.object(server, "PAGE", folder):
        yield


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=_CHROMIUM, args=_FLAGS, timeout=_PATIENCE
        )
        yield started
        started.close()


@pytest.fixture
def visit(browser):
    """Function that opens a player's page in a new window; returns the page."""
    contexts = []

    def go(player, width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 844}, **options)
        context.set_default_timeout(_PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.add_init_script(_TAP)
        page.goto(player.address)
        _until(page, "document.getElementById('models').length > 0")
        return page

    yield go
    for context in contexts:
        assert [page.errors for page in context.pages] == [[]]
        context.close()


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """A WAV of ten seconds of a real song."""
    path = tmp_path_factory.mktemp("song") / "song.wav"
    samples, rate = audio.read(recordings.SODIUM)
    write_wav(path, samples[: 10 * rate], rate)
    return path


@pytest.fixture(scope="module")
def player(tmp_path_factory):
    with running(tmp_path_factory.mktemp("player")) as found:
        yield found


def _drop(page, path):
    """Drops a file on the page, as a mouse does."""
    page.evaluate(
        """([name, content]) => {
          const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], name));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
        }""",
        [path.name, base64.b64encode(path.read_bytes()).decode()],
    )


def _until(page, condition):
    """Waits until a condition in JavaScript holds; Playwright's own way is no match for the CSP."""
    wait_for(lambda: page.evaluate(condition), condition)


def _hear(page, samples):
    """Waits until so many more samples are heard."""
    now = page.evaluate("heard")
    _until(page, f"heard >= {now + samples}")


def _taken(page):
    """Returns what was heard since the last call: [8 channels of tracks, n], [2, n]."""
    content = base64.b64decode(page.evaluate("take()"))
    blocks = np.frombuffer(content, np.float32).reshape(-1, 10, 128)
    heard = blocks.transpose(1, 0, 2).reshape(10, -1)
    return heard[:8], heard[8:]


def test_a_person_hears_the_stems_of_a_song(player, visit, song, tmp_path):
    stems = runs.load_config(runs.shipped_model()).model.stems
    separate_file(Separator.load(), song, tmp_path / "song", Output(parse_stems([], stems)))
    truths = {stem: audio.read(tmp_path / "song" / f"{stem}.wav")[0] for stem in stems}
    page = visit(player)
    assert "Everything is Free" in page.locator("#about").text_content()
    _drop(page, song)
    page.locator("#downloads").wait_for()
    assert page.locator("#stems h3").all_inner_texts() == [*stems]
    assert page.locator("#status").inner_text() == "The stems of song.wav are ready."
    _until(page, "[...document.images].every((one) => one.naturalWidth > 200)")

    page.get_by_label("vocals: mute").click()
    page.keyboard.press("a")  # loops the song: the machine may be slow
    page.get_by_label("Play, pause").click()
    _hear(page, 30_000)
    tracks, master = _taken(page)
    _assert_within(tracks[2:4, 2000:20_000], truths["vocals"])
    _assert_within(master[:, 2000:20_000], truths["accompaniment"])
    page.keyboard.press("x")  # the mixture
    _hear(page, 5000)
    _taken(page)
    _hear(page, 9000)
    _assert_within(_taken(page)[1][:, :4000], audio.read(song)[0])
    page.keyboard.press("x")

    _loop(page, truths)
    _download(page, truths)
    page.get_by_label("vocals: spectrum").click()
    page.locator(".spectral").wait_for()
    page.reload()
    page.locator("#downloads").wait_for()  # the same song
    page.get_by_role("button", name="Another song").click()
    assert page.locator("#choose").is_visible()
    wait_for(lambda: player.files() == [], "files are left")


def _loop(page, truths):
    """Loops from 1 to 2.5 s."""
    page.fill("#position", "1")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("a")
    page.fill("#position", "2.5")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("b")
    assert page.locator("#loop").get_attribute("aria-pressed") == "true"
    page.fill("#position", "2")
    _taken(page)
    _hear(page, 120_000)  # 2.7 s: past the end of the loop
    tracks, _ = _taken(page)
    wrapped = _positions(tracks[4:6], truths["accompaniment"])
    assert (np.diff(wrapped) < 0).any()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")


def _download(page, truths):
    """Saves a stem, and a mix with the other at -6 dB on the left."""
    with page.expect_download() as download:
        page.get_by_label("vocals: save").click()
    assert download.value.suggested_filename == "song - vocals.wav"
    found, _ = audio.read(download.value.path())
    np.testing.assert_array_equal(found, truths["vocals"])
    page.get_by_label("accompaniment: gain").fill("-6")
    page.get_by_label("accompaniment: pan").fill("-1")
    with page.expect_download() as download:
        page.get_by_text("Mix of the faders").click()
    found, _ = audio.read(download.value.path())
    sums = 10 ** (-6 / 20) * truths["accompaniment"].sum(axis=1)
    np.testing.assert_allclose(found, np.stack([sums, 0 * sums], axis=1), atol=1e-6)


def _assert_within(heard, truth):
    """Asserts that [2, n] is a part of [samples, 2]."""
    at = _positions(heard[:, :16], truth)[0]
    np.testing.assert_allclose(heard.T, truth[at : at + heard.shape[1]], atol=2e-6)


def _positions(heard, truth):
    """Returns where windows of [2, n] are in [samples, 2]."""
    windows = np.lib.stride_tricks.sliding_window_view(truth[:, 0], 8)
    found = []
    for start in range(0, heard.shape[1] - 8, 4096):
        distance = np.abs(windows - heard[0, start : start + 8]).max(axis=1)
        if distance.min() < 1e-6:
            found.append(int(distance.argmin()))
    assert found
    return found


@pytest.mark.parametrize("width", [390, 1280])
def test_cancel_and_bad_files(player, visit, song, tmp_path, monkeypatch, width):
    """The separation waits after its first block, which can be played meanwhile."""
    gate, stream = threading.Event(), Separator.stream

    def slow(self, *arguments):
        for number, block in enumerate(stream(self, *arguments)):
            yield block
            if number == 3:
                assert gate.wait(300)

    monkeypatch.setattr(Separator, "stream", slow)
    page = visit(player, width)
    page.set_input_files("#file", song)
    page.locator("#stems li").first.wait_for()
    assert "Separating: " in page.locator("#stage").inner_text()
    page.get_by_label("Play, pause").click()
    _hear(page, 20_000)
    assert not page.locator("#downloads").is_visible()
    gate.set()
    _until(page, "heard > 230_000")  # more than was there: it goes on
    page.locator("#downloads").wait_for()
    gate.clear()
    page.set_input_files("#file", [])
    page.get_by_role("button", name="Another song").click()
    page.set_input_files("#file", song)
    page.locator("#stems li").first.wait_for()
    page.get_by_text("Cancel").click()
    gate.set()
    wait_for(lambda: player.files() == [], "files are left")
    note = tmp_path / "note.txt"
    note.write_text("no sound")
    page.set_input_files("#file", note)
    _until(page, "document.getElementById('alert').textContent.includes('found')")
    assert page.locator("#alert").inner_text().startswith("note.txt: found ")
    assert page.locator("#choose").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture(scope="module")
def ramps(tmp_path_factory):
    """A folder of three stems whose samples tell their position: position * 2**-(20 + stem)."""
    folder = tmp_path_factory.mktemp("ramps") / "song"
    ramp = np.arange(1, 100 * 8000 + 1)[:, None] / 2**20
    for stem, name in enumerate(("a", "b", "c")):
        write_wav(folder / f"{name}.wav", ramp / 2**stem, 8000, "float32")
    with running(tmp_path_factory.mktemp("player"), given=folder) as found:
        yield found


def test_stems_stay_aligned_through_twenty_seeks_and_pauses(ramps, visit):
    page = visit(ramps)
    page.locator("#downloads").wait_for()
    page.get_by_label("Play, pause").click()
    for number in range(20):
        page.fill("#position", f"{(7 * number) % 26 + 0.1 * (number % 7):.1f}")
        page.evaluate("document.activeElement.blur()")
        _hear(page, 900)
        page.keyboard.press(" ")
        page.keyboard.press(" ")
        _hear(page, 900)
    tracks, _ = _taken(page)
    places = tracks[2:8:2] * 2.0 ** (20 + np.arange(3)[:, None])
    np.testing.assert_array_equal(places[1:], places[:1].repeat(2, axis=0))
    np.testing.assert_array_equal(tracks[2:8:2], tracks[3:8:2])
    steps = np.diff(places[0])
    whole = (places[0] == np.round(places[0])) & (places[0] > 0)
    assert (steps[whole[:-1] & whole[1:]] == 1).mean() > 0.98
    assert ((steps == 1).sum()) > 20 * 1000


def test_keys_and_accessibility(ramps, player, visit, song):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe").Axe()

    def violations(page):
        found = axe.run(page).response["violations"]
        return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]

    for width, scheme in ((390, "dark"), (1280, "light")):
        page = visit(ramps, width, color_scheme=scheme)
        page.locator("#downloads").wait_for()
        for summary in page.locator("summary:visible").all():
            summary.click()
        page.get_by_label("b: spectrum").click()
        page.get_by_label("c: mute").click()
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("button", name="Another song").click()
        page.locator("summary:visible").click()
        assert violations(page) == []
    page = visit(ramps)
    page.locator("#downloads").wait_for()
    pressed = {"2": "b: mute", "Shift+3": "c: solo"}
    for key, label in pressed.items():
        page.keyboard.press(key)
        assert page.get_by_label(label).get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowDown")
    assert page.locator("#volume").get_attribute("aria-valuetext") == "-2 dB"
    page.keyboard.press("ArrowRight")
    _until(page, "document.getElementById('now').textContent === '00:05'")
    page.keyboard.press("End")
    _until(page, "document.getElementById('now').textContent === '01:40'")
    page.locator("summary", has_text="Keys").click()
    page.get_by_label("Use these keys").uncheck()
    page.keyboard.press("Home")
    assert page.locator("#now").inner_text() == "01:40"
