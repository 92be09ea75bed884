"""The recipes of the weights that come with the package, and the command that follows one."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lpcvc_zoo.data import SHIPPED
from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.training.guard import benchmark_captions, caption_hash
from lpcvc_zoo.training.recipe import checked

RECIPES = Path(__file__).parent.parent / "benchmarks" / "recipes"
FILES = sorted(RECIPES.glob("*.toml"))

FAKE = """
import sys
from pathlib import Path
option, name = sys.argv[1:]
with open("runs.txt", "a") as runs:
    runs.write(name + "\\n")
if Path(f"{name}.stops").exists():
    sys.exit(1)
if option == "--out":
    Path(name).write_text(Path(f"{name}.data").read_text() if Path(f"{name}.data").exists() else "made")
print(f"like it should be: {Path('number').read_text()}, 3 photos")
"""
WAITS = """
import time
while not Path("go").exists():
    time.sleep(0.01)
"""
PLAN = """
steps = [
    {run = "fake.py --out {makes}", makes = "one"},
    {run = "fake.py --out {makes}", makes = "two"},
    {run = "fake.py --check three"},
]
expected = [{what = "like it should be", value = 0.5, tolerance = 0.1}]
"""

# Goes on where it was, as lpcvc_zoo.training does: a run at its end takes no step, whatever the recipe says.
TRAIN = """
import sys, tomllib
from pathlib import Path
import half
recipe, _, out = sys.argv[1:]
lr = tomllib.loads(Path(recipe).read_text())["training"]["lr"]
state, model = Path(out, "state"), Path(out, "model")
state.parent.mkdir(parents=True, exist_ok=True)
taken = state.read_text() if state.exists() else ""
while len(taken) < 3:
    taken += str(lr)
    state.write_text(taken)
    model.write_text(taken)
    if Path("stop").exists():
        sys.exit(1)
model.write_text(taken)
"""
HALF = 'TABLE = "words.tsv"'
TRAIN_PLAN = """
steps = [
    {run = "fake.py --out {makes}", makes = "one"},
    {run = "train.py {recipe} --out runs/x", makes = "runs/x/model"},
]
training = {lr = 1}
"""


@pytest.fixture
def make(monkeypatch, tmp_path):
    """The driver, where a recipe of two steps and a check lies beside a script that only says it was run."""
    monkeypatch.syspath_prepend(str(RECIPES))
    import make as driver

    monkeypatch.chdir(tmp_path)
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "half.py").write_text(HALF)
    (tmp_path / "words.tsv").write_text("a word")
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "number").write_text("0.45")
    yield driver
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").parent == RECIPES:
            del sys.modules[name]


def test_every_file_that_is_shipped_has_a_recipe_that_says_what_to_expect(make) -> None:
    recipes = {path.stem: make.read(path) for path in FILES}
    shipped = {path.stem for path in SHIPPED.glob("*.safetensors")}
    assert shipped <= recipes.keys()
    for name in shipped:
        assert recipes[name].expected, name
        assert f"recipes-data/weights/{name}.safetensors" in {step.makes for step in recipes[name].steps}


class Parsed(Exception):
    pass


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_step_is_a_script_that_takes_its_options(make, path: Path, monkeypatch) -> None:
    parse_args = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser) -> None:
        parse_args(parser)  # SystemExit for what it does not take
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    *steps, last = make.read(path).steps
    assert all(step.makes for step in steps)
    assert not last.makes
    for step in (*steps, last):
        script, *options = make.command(step, path)
        monkeypatch.setattr(sys, "argv", [script, *options])
        with pytest.raises(Parsed):
            import_module(script.removesuffix(".py")).main()


def test_millions_of_pictures_want_a_gpu_and_the_recipe_for_a_cpu_does_not(make, monkeypatch, capsys) -> None:
    import efficientvit_image

    started: list[str] = []
    monkeypatch.setattr(efficientvit_image, "train", lambda *given: started.append(given[-1].type))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)

    def run(name: str, *more: str) -> None:
        path = RECIPES / f"{name}.toml"
        (line,) = (make.command(step, path) for step in make.read(path).steps if step.run.startswith("effi"))
        monkeypatch.setattr(sys, "argv", [*line, *more])
        efficientvit_image.main()

    with pytest.raises(SystemExit):
        run("efficientvit_b0")
    assert "learns from 7,417,856 pictures on a GPU, and torch sees none" in capsys.readouterr().err
    assert started == []
    run("efficientvit_b0", "--device", "cpu")
    run("efficientvit_m0_cpu")
    assert started == ["cpu", "cpu"]


def test_a_text_tower_is_checked_on_captions_that_are_not_the_benchmarks(make, monkeypatch, capsys) -> None:
    import text_agreement

    asked: list[str] = []

    def raw(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return np.ones((len(texts), 384), np.float32)

    monkeypatch.setattr(text_agreement, "raw", raw)  # MiniLM is no package of the tests
    monkeypatch.setattr(text_agreement, "centred", lambda rows: rows)
    monkeypatch.setattr(text_agreement, "whitening", lambda: np.eye(384, dtype=np.float32))
    line = ["text_agreement.py", "efficientnet_lite0_96_text_xxs", str(SHIPPED / "text_xxs.safetensors")]
    monkeypatch.setattr(sys, "argv", line)
    text_agreement.main()
    assert "393 captions" in capsys.readouterr().out
    assert not {caption_hash(text) for text in asked} & benchmark_captions()


@pytest.mark.parametrize("name", ["text_xs", "text_xxs"])
def test_a_text_recipe_trains_as_the_train_command_would(make, name: str) -> None:
    read = make.read(RECIPES / f"{name}.toml")
    training = read.training
    for document in (training, training | read.captions):
        recipe = checked(dict(document), name)
        assert (recipe.towers, recipe.seed) == (("text",), 0)
    made = [step.makes for step in read.steps]
    assert made.index(read.captions["pretrained"]) < made.index(f"runs/{name}/model.safetensors")
    with pytest.raises(TrainingError, match="epoch"):
        checked({**training, "epoch": 3}, name)


@pytest.mark.parametrize("changed", ["", "texts", "script", "weights"])
def test_a_stopped_run_goes_on_with_its_embeddings_unless_what_made_them_has_changed(
    make, monkeypatch, tmp_path, changed: str
) -> None:
    import minilm

    files = {name: tmp_path / name / "file" for name in ("texts", "script", "weights")}
    for path in files.values():
        path.parent.mkdir()
        path.write_text("one\ntwo\nthree\n")
    left = [np.ones((2, 384), np.float32)]

    def stops(texts: list[str]) -> np.ndarray:
        if not left:
            raise KeyboardInterrupt
        return left.pop()

    monkeypatch.setattr(minilm, "__file__", str(files["script"]))
    monkeypatch.setattr(minilm, "_published", lambda: files["weights"].parent, raising=False)
    monkeypatch.setattr(minilm, "PART", 2)
    monkeypatch.setattr(minilm, "centred", lambda rows: rows)
    monkeypatch.setattr(minilm, "raw", stops)
    monkeypatch.setattr(sys, "argv", ["minilm.py", str(files["texts"]), "--out", str(tmp_path / "out.npz")])
    with pytest.raises(KeyboardInterrupt):
        minilm.main()
    if changed:
        files[changed].write_text("one\ntwo\nthree\nfour\n")
    monkeypatch.setattr(minilm, "raw", lambda texts: np.full((len(texts), 384), 2, np.float32))
    minilm.main()
    made = np.load(tmp_path / "out.npz")
    first, *_, last = made["text_embeddings"][:, 0]
    assert (first, last) == (2 if changed else 1, 2)
    assert made["texts"].tolist() == files["texts"].read_text().split()
    assert not list(tmp_path.glob("*.parts"))


def test_a_text_tower_starts_from_minilm_as_it_is_now(make, monkeypatch, tmp_path) -> None:
    import text_start

    rows = np.random.default_rng(0).normal(size=(49408, 384)).astype(np.float32)
    rows[:, 0] *= 9
    monkeypatch.setattr(text_start, "raw", lambda texts: rows[: len(texts)])
    monkeypatch.setattr(text_start, "centred", lambda given: given)
    (tmp_path / "tokens.npy").write_bytes(b"of another MiniLM, or half")
    out = tmp_path / "start.safetensors"
    monkeypatch.setattr(sys, "argv", ["text_start.py", "text_xxs", "--out", str(out)])
    text_start.main()
    table = load_file(out)["text.token_embedding.0.weight"]
    assert abs(np.corrcoef(table[:, 0], rows[:, 0])[0, 1]) > 0.99


def test_a_recipe_is_followed_in_order_and_what_is_done_is_not_done_again(make, tmp_path, capsys) -> None:
    plan = Path("plan.toml")
    Path("two.stops").touch()
    with pytest.raises(SystemExit, match=r"fake\.py failed; run the same again"):
        make.make(plan)
    assert ran() == ["one", "two"]
    Path("two.stops").unlink()
    make.make(plan)
    assert ran() == ["one", "two", "two", "three"]
    assert "As expected." in capsys.readouterr().out
    make.make(plan)
    assert ran() == ["one", "two", "two", "three", "three"]
    Path("one").unlink()
    make.make(plan)
    assert ran()[5:] == ["one", "three"]  # it came out as it was
    Path("one").unlink()
    Path("one.data").write_text("another")
    make.make(plan)
    assert ran()[7:] == ["one", "two", "three"]


def ran() -> list[str]:
    return Path("runs.txt").read_text().split()


def test_a_run_that_was_stopped_goes_on_and_gives_its_model_again_where_that_was_deleted(make) -> None:
    plan, model = Path("plan.toml"), Path("runs/x/model")
    plan.write_text(TRAIN_PLAN)
    Path("stop").touch()
    with pytest.raises(SystemExit, match=r"train\.py failed; run the same again"):
        make.make(plan)
    Path("runs/x/notes").touch()
    Path("stop").unlink()
    make.make(plan)
    assert model.read_text() == "111"
    model.unlink()
    make.make(plan)
    assert model.read_text() == "111"
    assert Path("runs/x/notes").exists()  # nobody emptied the folder


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("what", ["command", "train.py", "half.py", "words.tsv", "recipe", "one"])
def test_a_run_whose_inputs_have_changed_begins_anew_and_says_why(make, capsys, what, finished) -> None:
    plan = Path("plan.toml")
    plan.write_text(TRAIN_PLAN)
    if finished:
        make.make(plan)
    else:
        Path("stop").touch()
        with pytest.raises(SystemExit):
            make.make(plan)
        Path("stop").unlink()
    Path("runs/x/notes").touch()
    match what:
        case "command":
            plan.write_text(TRAIN_PLAN.replace("{recipe} --out", "./{recipe} --out"))
        case "half.py" | "words.tsv":
            Path(what).write_text(HALF + "  # another")
        case "train.py":
            Path("train.py").write_text(TRAIN.replace("str(lr)", "str(lr + 1)"))
        case "recipe":
            plan.write_text(TRAIN_PLAN.replace("lr = 1", "lr = 2"))
        case "one":
            Path("one").unlink()
            Path("one.data").write_text("another")
    make.make(plan)
    assert f"runs/x/model is made anew, for there changed: {what}." in capsys.readouterr().out
    assert Path("runs/x/model").read_text() == ("222" if what in ("train.py", "recipe") else "111")
    assert not Path("runs/x/notes").exists()


def test_recipes_share_the_steps_that_do_not_read_them(make) -> None:
    other = Path("other.toml")
    other.write_text(PLAN + "training = {lr = 2}")
    make.make(Path("plan.toml"))
    make.make(other)
    assert ran() == ["one", "two", "three", "three"]


def test_recipes_beside_each_other_make_what_they_share_once(make, capsys) -> None:
    Path("fake.py").write_text(FAKE + WAITS)
    plans = [Path("plan.toml"), Path("other.toml")]
    plans[1].write_text(PLAN + "training = {lr = 2}")
    Path("runs.txt").touch()
    said = ""
    with ThreadPoolExecutor() as pool:
        made = [pool.submit(make.make, plan) for plan in plans]
        while "waiting for it" not in said and len(ran()) < 2 and not any(one.done() for one in made):
            said += capsys.readouterr().out
        Path("go").touch()
        for one in made:
            one.result()
    assert sorted(ran()) == ["one", "three", "three", "two"]


def test_what_recipes_beside_each_other_have_made_is_recorded_of_both(make, monkeypatch) -> None:
    recorded = make.recorded
    with ThreadPoolExecutor() as pool:

        def recorded_meanwhile() -> dict:
            """Between reading and writing, another records too, unless it waits."""
            found = recorded()
            monkeypatch.setattr(make, "recorded", recorded)
            wait([pool.submit(make.record, "two", make.Made(inputs={}, done=True))], timeout=0.5)
            return found

        monkeypatch.setattr(make, "recorded", recorded_meanwhile)
        make.record("one", make.Made(inputs={}, done=True))
    assert make.recorded().keys() == {"one", "two"}


def test_another_result_than_expected_is_an_error(make, capsys) -> None:
    plan = Path("plan.toml")
    Path("number").write_text("0.39")
    with pytest.raises(SystemExit, match=r"like it should be is 0\.39, not 0\.5 within 0\.1"):
        make.make(plan)
    plan.write_text(PLAN.replace("like it", "how it"))
    with pytest.raises(SystemExit, match="did not print 'how it should be'"):
        make.make(plan)
    plan.write_text(PLAN.partition("expected")[0])
    make.make(plan)
    assert "was not measured" in capsys.readouterr().out
    plan.write_text(PLAN.replace("fake.py --out", "fake.py --nothing", 1))
    Path("one").unlink()
    with pytest.raises(SystemExit, match="made no one"):
        make.make(plan)


def test_the_command_names_the_recipes() -> None:
    command = shlex.split(f"{sys.executable} {RECIPES / 'make.py'} --help")
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for path in FILES:
        assert path.stem in shown
