"""An estimate in words and as JSON."""

from __future__ import annotations

from typing import Any

from paddlemix.estimate.setup import Setup
from paddlemix.estimate.total import Estimate

GIB = 2**30


def as_text(name: str, found: Estimate, setup: Setup) -> str:
    """Write the table that a user reads.

    Args:
        name: of the model.
        found: for each card.
        setup: what it was estimated for.

    Returns:
        Lines, the last one ended.
    """
    rows = {name: size for name, size in sizes(found).items() if name != "total"}
    lines = [
        f"{name}: {found.parameters:,} parameters, {found.trained:,} trained; {_precision_words(setup)}",
        f"{_cards_words(setup)}; a forward pass of {setup.batch.tokens:,} tokens a card, "
        f"{setup.batch.image_share:.0%} of images{_recompute_words(setup)}",
        "",
        *(f"  {title:<38}{size / GIB:>10.2f} GiB" for title, size in rows.items()),
        f"  {'each card':<38}{found.total / GIB:>10.2f} GiB",
        "",
        f"Most is taken while {found.activations.moment_name} {_verb(found)} computed. Paddle, drivers and what they "
        "keep unused are not in it.",
    ]
    return "\n".join(lines) + "\n"


def sizes(found: Estimate) -> dict[str, float]:
    """Return the bytes by what they are taken for, in the order of the table, and `total`."""
    activations = found.activations
    return {
        "weights": found.weights,
        "gradients": found.gradients,
        "optimizer": found.optimizer,
        "pixels": activations.batch,
        "activations of the vision tower": activations.tower,
        "activations of the aligner": activations.aligner,
        "activations of the language model": activations.decoder,
        "for a moment": activations.moment,
        "total": found.total,
    }


def as_json(name: str, found: Estimate, setup: Setup) -> dict[str, Any]:
    """Write what scripts read; sizes are whole bytes."""
    return {
        "model": name,
        "parameters": found.parameters,
        "trained": found.trained,
        "cards": setup.cards.count,
        "tokens": setup.batch.tokens,
        "image_tokens": setup.batch.image_tokens,
        "most_is_taken_at": found.activations.moment_name,
        "bytes_on_each_card": {title.replace(" ", "_"): round(size) for title, size in sizes(found).items()},
    }


def _verb(found: Estimate) -> str:
    return "are" if found.activations.moment_name.endswith("gradients") else "is"


def _precision_words(setup: Setup) -> str:
    precision = setup.precision
    held, computed = 8 * precision.weight, 8 * precision.product
    coded = "" if setup.coded is None else f", linear layers in {setup.coded.title}"
    return f"weights of {held} bits{coded}" + ("" if held == computed else f", products of {computed}")


def _cards_words(setup: Setup) -> str:
    cards = setup.cards
    cuts = [f"sharding stage {cards.stage} over {cards.sharding}"] if cards.sharding > 1 else []
    cuts += [f"tensor parallelism over {cards.tensor}"] if cards.tensor > 1 else []
    cuts += ["what is sharded of the optimizer offloaded"] if cards.offload else []
    return ", ".join([f"{cards.count} card{'s' if cards.count > 1 else ''}", *cuts])


def _recompute_words(setup: Setup) -> str:
    parts = [
        part
        for part, is_on in (("vision tower", setup.recompute_vit), ("language model", setup.recompute_llm))
        if is_on
    ]
    return f"; {' and '.join(parts)} recomputed" if parts else ""
