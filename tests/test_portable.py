"""Portable models, their cards, and the programs that take them."""

import functools
import json
import re
import shutil

import numpy as np
import pytest
import yaml

from experiments.baselines import trained
from experiments.reports.card_scores import scores_section
from sccunet import Separator, build_model, model_card, tflite
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.files import sha256_of
from sccunet.model_card import About
from sccunet.portable import CARD, write_portable
from sccunet.runs import BEST, CONFIG, NETWORK, kind_of, load_config, weights_of

_NOTES = "## Intended use\n\nFor tests.\n\n## Sources\n| works | licence |\n"
_ABOUT = About("three songs", "CC BY-NC-SA 4.0", "SDR 5", _NOTES)


def _config(channels):
    model = ModelConfig(
        stems=("lead vocals", "größe | _x"),
        frame_length=256,
        hop_length=64,
        patch_samples=4096,
        filters=(16, 48),
        channels=channels,
        output="mask" if channels == 2 else "magnitude",
    )
    return Config(model=model, downmix=False, seed=3)


@pytest.fixture(scope="module")
def written(randomise, tmp_path_factory):
    """Function (channels, half) -> network in memory, its folder, and the difference in dB."""

    @functools.cache
    def write(channels, half):
        config = _config(channels)
        unet = randomise(build_model(config), seed=4)
        folder = tmp_path_factory.mktemp("portable") / "songs of 3"
        return unet, folder, write_portable(unet, config, folder, half, _ABOUT)

    return write


@pytest.mark.parametrize(("channels", "half"), [(1, False), (2, True)])
def test_a_portable_model_separates_as_the_network_in_memory(channels, half, written):
    unet, folder, difference = written(channels, half)
    config = _config(channels)
    assert sorted(entry.name for entry in folder.iterdir()) == sorted([CARD, CONFIG, NETWORK])
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]
    assert kind_of(folder) == "portable model"
    assert load_config(folder) == config
    recording = (0.1 * np.random.default_rng(1).standard_normal((10_000, 2))).astype(np.float32)
    system = trained.load(config, folder)
    found = system.separate(recording, None, None)
    if half:  # the weights were compared when they were written
        truth = Separator.load(folder, runtime="tensorflow")
    else:
        truth = Separator.from_model(unet, config)
    for stem, samples in zip(found, truth(recording, 44_100).values(), strict=True):
        assert samples.std() > 0.005
        np.testing.assert_allclose(stem, samples, rtol=0, atol=1e-5)
    assert -90 < difference < -50 if half else difference < -100
    assert system.count_parameters() == config.model.parameters
    assert list(system.versions) == ["openvino"]


def test_float16_weights_take_half_of_the_space(written):
    for channels, half, size in ((1, False, 4), (2, True, 2)):
        found = (written(channels, half)[1] / NETWORK).stat().st_size
        # The structure of the network takes 20 kB.
        assert 0 < found - size * _config(channels).model.parameters < 25_000


def test_the_card(written):
    _, folder, difference = written(2, True)
    text = (folder / CARD).read_text()
    _, head, body = text.split("---\n", 2)
    found = yaml.safe_load(head)
    assert found["license"] == "cc-by-nc-sa-4.0"
    assert found["library_name"] == "sccunet"
    assert "music-source-separation" in found["tags"]
    model = _config(2).model
    size = (folder / NETWORK).stat().st_size
    for expected in (
        "# songs of 3\n",
        "Separates music into lead vocals and größe | _x. ",
        "| stems | lead vocals, größe \\| _x |\n",
        "| sample rate | 44100 Hz |\n",
        "| channels | left and right together |\n",
        f"| parameters | {model.parameters:,} |\n",
        f"| {size / 1e6:.2f} MB, weights in float16, which changes the stems of noise by"
        f" {difference:.0f} dB |\n",
        "| licence of the weights | CC BY-NC-SA 4.0 |\n",
        "sccunet separate --model='songs of 3' song.mp3\n",
        'Separator.load("songs of 3")',
        f" each stem out.\n\n{_NOTES}\n## Training data\n\nthree songs\n",
        "## Scores\n\nSDR 5\n",
        "| model.filters | 16, 48 |\n",
        "| epochs | 40 |\n",
    ):
        assert expected in body
    assert re.search(
        r"\| exported with \| sccunet [\d.]+, commit (unknown|[0-9a-f]{40}(-dirty)?) \|\n", body
    )


@pytest.mark.parametrize(
    ("licence", "head"),
    [
        ("not stated", {"license": "unknown"}),
        ("MIT", {"license": "mit"}),
        ("CC0 1.0", {"license": "cc0-1.0"}),
        ('Only: for "us" #1', {"license": "other", "license_name": "only-for-us-1"}),
    ],
)
def test_the_head_of_the_card_and_what_is_not_stated(licence, head):
    text = model_card.model_card("x", _config(1), About(licence=licence), 10, "float32")
    found = yaml.safe_load(text.split("---\n")[1])
    assert {key: value for key, value in found.items() if key.startswith("license")} == head
    assert "| channels | each on its own |\n" in text
    for section in ("Training data", "Scores"):
        assert f"## {section}\n\nnot stated\n" in text
    with pytest.raises(ConfigError, match=r"card: found 'Words\.' at the start, expected a h"):
        About(notes="Words.\n## Use")


def test_another_network_is_refused_and_nothing_is_left(written, tmp_path, monkeypatch):
    unet, folder, _ = written(1, False)
    with pytest.raises(ConfigError, match=r"3: found an existing folder, expected a new folder$"):
        write_portable(unet, _config(1), folder)
    monkeypatch.setattr(
        tflite, "export_tflite", lambda *args: shutil.copy(folder / NETWORK, args[2])
    )
    refused = r"^/.*/new: its stems of noise differ .* by -?\d+ dB, expected -90 dB or less$"
    with pytest.raises(ConfigError, match=refused):
        write_portable(build_model(_config(1)), _config(1), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_scores_for_the_card(tmp_path):
    run, scores = tmp_path / "run", tmp_path / "scores"
    for folder in (run, scores):
        folder.mkdir()
    (run / CONFIG).write_text(_config(1).to_json())
    (run / BEST).write_text("weights")
    with pytest.raises(ConfigError, match=r"--scores: found no summary\.json in .*/scores, expec"):
        scores_section(str(scores), str(run))
    spread = {"median": 5.678, "p25": None, "p75": None}
    spreads = dict.fromkeys(("vocals", "rest"), spread)
    stem = dict.fromkeys(("SDR", "SIR", "SAR", "ISR"), spread)
    summary = {
        "metric": "museval",
        "split": "test",
        "tracks": ["test/a", "test/b"],
        "excerpt_seconds": 30.0,
        "stems": {"vocals": stem | {"SIR": spread | {"median": None}}, "rest": stem},
        "si_sdr": {"metric": "SI-SDR of tracks", "stems": spreads},
    }
    (scores / "summary.json").write_text(json.dumps(summary))
    how = {"mask": "soft", "exponent": 1.0, "iterations": 1}
    settings = {"system": "model", "model_sha256": "0", "reconstruction": how}
    (scores / "evaluation.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"--scores: found scores of another model in .*/scores"):
        scores_section(str(scores), str(run))
    settings["model_sha256"] = sha256_of(weights_of(run))
    (scores / "evaluation.json").write_text(json.dumps(settings))
    text = scores_section(str(scores), str(run))
    assert text.splitlines() == [
        "2 tracks of the split test, 30 s from the middle of each: a, b. Separated with"
        " `--mask=soft --mask_exponent=1.0`.",
        *("", "museval:", ""),
        *("| stem | SDR | SIR | SAR | ISR |", "| --- | --: | --: | --: | --: |"),
        "| vocals | 5.68 | no score | 5.68 | 5.68 |",
        "| rest | 5.68 | 5.68 | 5.68 | 5.68 |",
        *("", "SI-SDR of tracks:", ""),
        *("| stem | SI-SDR |", "| --- | --: |", "| vocals | 5.68 |", "| rest | 5.68 |"),
    ]
