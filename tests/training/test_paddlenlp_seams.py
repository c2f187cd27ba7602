"""PaddleNLP's private names: those that are relied on are there, and no other file relies on any."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import paddlenlp
import pytest
from paddlenlp.peft.lora import LoRAModel
from paddlenlp.trainer import Trainer
from paddlenlp.trainer.trainer import TrainerState
from paddlenlp.trainer.trainer_utils import TrainerMemoryTracker
from paddlenlp.transformers import PretrainedConfig, PretrainedModel

import paddlemix
from paddlemix.training import paddlenlp_seams
from paddlemix.training.paddlenlp_seams import PADDLENLP_VERSION, SeamTrainer

# Of PaddleNLP's own sources, which are parsed here.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")

ROOT = Path(paddlemix.__file__).parent
SEAMS = Path(paddlenlp_seams.__file__)
ADVICE = f"look at {SEAMS.relative_to(ROOT.parent)}, which is true for PaddleNLP {PADDLENLP_VERSION}"

# Names that other files must rely on, and why.
EXCEPTIONS = {
    ("peft/lora_model.py", "_find_and_replace_module"): "LoRAModel asks it which layer takes a layer's place",
    ("models/base.py", "_init_weights"): "PretrainedModel asks it for the first values of a layer, as in transformers",
}
# As Trainer calls them, by keyword or by position.
CALLED = {
    "_save": ["output_dir", "merge_tensor_parallel"],
    "_prepare_inputs": ["inputs"],
    "_get_learning_rate": [],
}
KEPT = ("_total_loss_scalar", "_memory_tracker")


def overridden() -> list[str]:
    return [name for name in vars(SeamTrainer) if is_private(name) and inspect.isfunction(getattr(SeamTrainer, name))]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_abc_impl"


def touched(file: Path) -> Iterator[str]:
    """The private names that a file defines as methods, or reads or sets of an object."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr
        if isinstance(node, ast.ClassDef):
            yield from (one.name for one in node.body if isinstance(one, ast.FunctionDef) and is_private(one.name))


def names_of(*classes: type) -> set[str]:
    """The private names of classes: methods, and what they set of themselves."""
    found = {name for one in classes for name in dir(one) if is_private(name)}
    for one in classes:
        found |= {name for base in one.__mro__[:-1] if own_source(base) for name in set_by(base)}
    return found


def own_source(one: type) -> bool:
    return one.__module__.startswith("paddlenlp.")


def set_by(one: type) -> Iterator[str]:
    for node in ast.walk(ast.parse(inspect.getsource(one))):
        is_set = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if is_set and is_private(node.attr) and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr


def test_the_seams_are_true_for_the_version_that_is_installed() -> None:
    assert paddlenlp.__version__ == PADDLENLP_VERSION, (
        f"PaddleNLP {paddlenlp.__version__} is installed. Read its trainer.py where {SEAMS.name} overrides it, then "
        "change `PADDLENLP_VERSION`."
    )


@pytest.mark.parametrize("name", overridden())
def test_what_is_overridden_is_there_with_the_arguments_that_we_take(name: str) -> None:
    theirs = getattr(Trainer, name, None)
    assert theirs is not None, f"PaddleNLP's Trainer has no {name} any more, so ours is never called: {ADVICE}."
    ours, found = (list(inspect.signature(one).parameters) for one in (getattr(SeamTrainer, name), theirs))
    assert ours == found, f"PaddleNLP's Trainer.{name} takes {found}, but ours takes {ours}: {ADVICE}."
    assert f"self.{name}(" in inspect.getsource(Trainer), f"PaddleNLP's Trainer never calls {name}: {ADVICE}."


@pytest.mark.parametrize("name", CALLED)
def test_what_is_called_is_there_and_takes_what_we_give(name: str) -> None:
    theirs = getattr(Trainer, name, None)
    assert theirs is not None, f"PaddleNLP's Trainer has no {name} any more: {ADVICE}."
    found = inspect.signature(theirs).parameters
    assert set(CALLED[name]) <= set(found), f"PaddleNLP's Trainer.{name} takes {list(found)}: {ADVICE}."


@pytest.mark.parametrize("name", KEPT)
def test_what_is_read_or_set_is_set_by_paddlenlp(name: str) -> None:
    assert f"self.{name} " in inspect.getsource(Trainer), f"PaddleNLP's Trainer keeps no {name} any more: {ADVICE}."


def test_the_tests_above_know_all_private_names_of_the_seams() -> None:
    names = set(touched(SEAMS)) - {name for name in vars(SeamTrainer) if name == "_abc_impl"}
    assert names == {*overridden(), *CALLED, *KEPT} and len(overridden()) > 5


def test_no_other_file_relies_on_a_private_name_of_paddlenlp() -> None:
    theirs = names_of(Trainer, TrainerState, TrainerMemoryTracker, LoRAModel, PretrainedModel, PretrainedConfig)
    assert {"_save", "_total_loss_scalar", "_find_and_replace_module"} <= theirs
    found = {
        (file.relative_to(ROOT).as_posix(), name)
        for file in sorted(ROOT.rglob("*.py"))
        if file != SEAMS
        for name in touched(file)
        if name in theirs
    }
    assert found == set(EXCEPTIONS), (
        f"{sorted(found - set(EXCEPTIONS))}: private names of PaddleNLP belong in "
        f"{SEAMS.relative_to(ROOT.parent)}; what is ours needs another name."
    )
