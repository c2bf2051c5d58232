"""Asks a person on a terminal for what a draft of a manifest still lacks."""

from __future__ import annotations

import sys
from typing import Final

import typer

from fallback.errors import InvalidError
from gateway import draft
from gateway.draft import Missing, Outline
from gateway.manifest import Manifest

ON_DEFERRAL: Final = {
    "provisional": "the model's answer at once, marked as provisional",
    "wait": "nothing until a person has answered, or its deadline",
    "refuse": "an error that says that a person has been asked",
}


def ask(manifest: Manifest, outlined: Outline, *, reviewed: bool, activation: str | None) -> Manifest:
    """Ask for what is missing on a terminal; elsewhere raise InvalidError that names the options."""
    left = draft.missing(manifest, outlined, reviewed=reviewed, activation=activation)
    if not left:
        return manifest
    if not sys.stdin.isatty():
        wanted = "; ".join(f"{item.option} ({item.what})" for item in left)
        raise InvalidError(f"the file cannot know everything; publishing it needs {wanted}")
    for item in left:
        manifest = _answered(manifest, outlined, item)
    return manifest


def _answered(manifest: Manifest, outlined: Outline, item: Missing) -> Manifest:
    match item.option:
        case "--labels":
            classes = outlined.classes()
            prompt = f"Labels in order, separated by commas{f' ({classes} of them)' if classes else ''}"
            while len(labels := draft.parse_labels(typer.prompt(prompt))) != (classes or len(labels)):
                typer.echo(f"expected {classes} labels, one for each output, got {len(labels)}")
            return draft.fill(manifest, labels=labels)
        case "--activation":
            scores = typer.confirm(f"Does softmax still have to make probabilities? ({item.what})", default=True)
            return draft.fill(manifest, activation="softmax" if scores else "none")
        case "--question":
            return draft.fill(manifest, question=typer.prompt("The question a reviewer is asked"))
        case _:
            typer.echo("A client that knows nothing of deferrals gets, for a request that waits for a person:")
            for choice, meaning in ON_DEFERRAL.items():
                typer.echo(f"  {choice:<12} {meaning}")
            while (chosen := typer.prompt("provisional, wait or refuse")) not in ON_DEFERRAL:
                pass
            return draft.fill(manifest, on_deferral=chosen)
