"""The program ablate, but its runs train nothing and have the scores of the folder SCORES.

Run by tests/test_ablate.py. It prints each command as JSON.
"""

import json
import os
import runpy
import shutil
from pathlib import Path

from experiments import arguments, cli
from experiments.ablating import step_times


def run_program(name: str, *given: str) -> int:
    """Takes the place of `cli.run_program`; a run has only its config."""
    print(json.dumps([name, *given]))
    values = dict(each.removeprefix("--").split("=", 1) for each in given)
    if name == "evaluate":
        shutil.copytree(os.environ["SCORES"], values["output_dir"], dirs_exist_ok=True)
    else:
        fields = {f.removeprefix("config."): v for f, v in values.items() if "config." in f}
        run = Path(values["workdir"])
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.json").write_text(arguments.config_of(values["config"], fields).to_json())
    return 0


def run_worker(section: str, name: str, settings: dict) -> dict:
    """Takes the place of `processes.run_worker`: a step of the batch size 4 takes 0.5 s."""
    return {
        "seconds": [0.125 * settings["batch_size"] * settings["steps"]],
        "work": settings["steps"],
    }


if __name__ == "__main__":
    cli.run_program, step_times.run_worker = run_program, run_worker
    runpy.run_module("experiments.ablate", run_name="__main__", alter_sys=True)
