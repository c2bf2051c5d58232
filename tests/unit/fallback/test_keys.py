"""Keys and the scripts that use them."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback import keys
from fallback.connection import Script

SCRIPTS = sorted(
    path.name.removesuffix(".lua")
    for path in (resources.files("fallback") / "scripts").iterdir()
    if path.name.endswith(".lua") and path.name != "common.lua"
)


def test_all_keys_of_a_queue_share_its_hash_tag_and_name_the_layout() -> None:
    """One script may touch them all, on a cluster too."""
    made = [
        *keys.indexes("digits"),
        keys.record("digits", "1"),
        keys.subject("digits", "1"),
        keys.inputs("digits", "1"),
        keys.drafts("digits", "1"),
        keys.task("digits", "1"),
    ]
    assert all(key.startswith("demur:1:{digits}:") for key in made)
    assert len(set(made)) == len(made)


def test_every_index_is_listed_with_its_meaning() -> None:
    """Once, at the head of the module."""
    listed = (keys.__doc__ or "").split("\n")
    for name in keys.INDEXES:
        assert any(re.match(rf"    (\w+, )*{name}\b", line) for line in listed), name


def test_an_index_that_is_not_listed_has_no_key() -> None:
    """A typo is no new key."""
    with pytest.raises(ValueError, match="fre"):
        keys.index("digits", "fre")


@given(parts=st.lists(st.text(max_size=5), max_size=4), others=st.lists(st.text(max_size=5), max_size=4))
def test_no_two_lists_of_texts_share_a_digest(parts: list[str], others: list[str]) -> None:
    """A client called a:b with key c is not client a with key b:c."""
    assert (keys.digest(*parts) == keys.digest(*others)) == (parts == others)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_what_it_takes_and_names_only_known_keys(name: str) -> None:
    """Its first line has its flags, then comes what it does; all keys come from the list or its prefix."""
    indexes = keys.DOCUMENT_INDEXES if name == "write" else keys.INDEXES
    text = (resources.files("fallback") / "scripts" / f"{name}.lua").read_text()
    first, second, *_ = text.split("\n")
    assert first.startswith("#!lua")
    assert second.startswith(f"-- {name}: ")
    assert set(re.findall(r"\bK\.(\w+)", text)) <= set(indexes)
    assert "KEYS[" not in text
    script = Script(name, indexes=indexes)
    assert script.source.startswith(first)
    assert len(script.sha1) == 40


def test_only_what_makes_the_server_fuller_is_refused_out_of_memory() -> None:
    """Reviewers can always empty the queue: of what they do, only drafts and flags need room."""
    flags = {
        name: (resources.files("fallback") / "scripts" / f"{name}.lua").read_text().split("\n")[0] for name in SCRIPTS
    }
    assert {name for name, line in flags.items() if "allow-oom" not in line} == {
        "park",
        "draft",
        "flag",
        "write",
        "inspect",
        "weigh",
        "holders",
        "read",
    }
    assert "no-writes" in flags["inspect"]


def test_a_script_without_its_first_line_is_a_mistake_of_ours() -> None:
    """Without flags it would be refused out of memory."""
    with pytest.raises(ValueError, match=r"common\.lua"):
        Script("common")
