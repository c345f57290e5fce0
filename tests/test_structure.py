"""The structure of the code: lengths of modules and functions, and imports."""

import ast
import functools
import graphlib
import importlib
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import sccunet
from experiments.command import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGES = ("sccunet", "data_pipeline", "experiments")
MAIN_PATH = ("prepare", "train", "separate", "export")
# Runs programs by their names and imports none; others may read its table of commands.
DISPATCHER = "experiments.command"
FOR_DATA_PIPELINE = {
    f"sccunet.{name}" for name in ("ahead", "checks", "config", "model_config", "files", "spectral")
}


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Returns name -> content of every module of the three packages."""
    found = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def lines(name: str) -> int:
    """Returns the length of a module."""
    path = ROOT / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return len(path.read_text().splitlines())


def imports(name: str) -> set[str]:
    """Returns what a module imports from the three packages, also in its functions."""
    return set(_imported(ast.walk(modules()[name])))


def imports_at_once(name: str) -> set[str]:
    """Returns the same, without imports in functions."""
    return set(_imported(_outside_functions(modules()[name])))


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _outside_functions(child)


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "found a relative import, expected none"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (_module_of(name) for name in names if name.partition(".")[0] in PACKAGES)


def _module_of(name: str) -> str:
    """Returns the imported module: `name` itself, or the one with the attribute `name`."""
    if name in modules():
        return name
    module, _, attribute = name.rpartition(".")
    if module == "sccunet" and attribute in sccunet._HOMES:  # imported when it is first used
        return f"sccunet.{sccunet._HOMES[attribute]}"
    return _module_of(module)


def programs() -> set[str]:
    """Returns modules of experiments that users start, or that run as separate processes."""
    names = {f"experiments.{command}" for group in COMMANDS.values() for command in group}
    names = {f"{name}.__main__" if f"{name}.__main__" in modules() else name for name in names}
    for name, tree in modules().items():
        tests = [ast.unparse(node.test) for node in tree.body if isinstance(node, ast.If)]
        if name.startswith("experiments.") and "__name__ == '__main__'" in tests:
            names.add(name)
    return names - {DISPATCHER}


def main_path() -> set[str]:
    """Returns the programs of the main path, with all direct and indirect imports."""
    found, left = set(), [f"experiments.{name}" for name in MAIN_PATH]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += imports(name)
    return found


def test_the_tree_is_read_as_python_does():
    """The other tests depend on this."""
    assert {"experiments.train", "experiments.benchmarks.worker"} <= programs()
    assert "experiments.configs.__main__" in programs()
    assert "experiments.configs" not in programs()
    assert {"sccunet.unet", "sccunet.files", "data_pipeline.mmap_reader"} <= main_path()
    assert not {"experiments.benchmark", "experiments.command"} & main_path()
    assert "sccunet.unet" in imports("experiments.benchmarks.models")  # sccunet.build_model
    assert "sccunet.unet" not in imports_at_once("experiments.benchmarks.models")
    assert "experiments.cli" in imports_at_once("experiments.benchmark")


def longer_than(most: int, names: Iterable[str]) -> list[str]:
    """Returns the modules with more lines than a limit."""
    return [f"{name}: {lines(name)} lines" for name in sorted(names) if lines(name) > most]


def test_no_module_is_longer_than_400_lines():
    assert not (found := longer_than(400, modules())), "\n".join(found)


def test_no_module_of_the_main_path_is_longer_than_300_lines():
    assert not (found := longer_than(300, main_path())), "\n".join(found)


@pytest.mark.parametrize("folder", [*PACKAGES, "tests"])
def test_no_function_is_longer_than_60_lines(folder):
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if (length := node.end_lineno - node.lineno + 1) > 60
    ]
    assert not found, "\n".join(found)


def test_nobody_imports_a_program():
    found = [f"{name} imports {i}" for name in modules() for i in imports(name) & programs()]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("package", "allowed"), [("sccunet", set()), ("data_pipeline", FOR_DATA_PIPELINE)]
)
def test_packages_import_in_one_direction(package, allowed):
    found = [
        f"{name} imports {imported}"
        for name in modules()
        for imported in imports(name) - allowed
        if name.partition(".")[0] == package != imported.partition(".")[0]
    ]
    assert not found, "\n".join(found)


def test_no_modules_import_each_other():
    graph = {name: imports_at_once(name) for name in modules()}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_sccunet_reads_no_audio_files_and_knows_no_flags():
    found = [
        f"{name} imports {alias}"
        for name, tree in modules().items()
        if name.partition(".")[0] == "sccunet"
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in [getattr(node, "module", node.names[0].name)]
        if alias.partition(".")[0] in ("absl", "av", "ml_collections", "soundfile")
    ]
    assert not found, "\n".join(found)


def test_counts_in_messages_have_singulars():
    """`counted` writes "1 track"; constants are never 1."""
    plural = re.compile(r" (\w+ )?(channels|epochs|files|folders|recordings|streams|tracks)\b")
    found = [
        f"{name}:{node.lineno} {ast.unparse(number)}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for number, text in itertools.pairwise(node.values)
        if isinstance(number, ast.FormattedValue)
        and isinstance(text, ast.Constant)
        and plural.match(text.value)
        and not ast.unparse(number.value).isupper()
    ]
    assert not found, "\n".join(found)


def test_json_files_are_read_by_read_json():
    """It names the file if that is damaged."""
    found = [
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).startswith("json.load")
        and any(read in ast.unparse(node) for read in (".read_text(", ".read_bytes(", "open("))
    ]
    assert not found


def test_progress_bars_stay_out_of_redirected_logs():
    """tqdm's `disable=None` shows a bar on terminals only."""
    found = [
        f"{name}:{node.lineno}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "tqdm"
        if "disable" not in {keyword.arg for keyword in node.keywords}
    ]
    assert not found, "\n".join(found)


_OPTIONAL = {"apache_beam", "starlette", "tensorflow_io", "torch", "uvicorn"}


def test_every_module_can_be_imported():
    """Annotations are evaluated then, in modules that only slow tests use, too."""
    missing = {}
    for name in sorted(modules()):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing[name] = error.name
    assert set(missing.values()) <= _OPTIONAL, missing
