"""Concepts' names in prompts: one rule of what is the same name, and where a text holds one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

# What looks like a concept's name whoever owns it.
_BRACKETED = re.compile(r"<[^\W\d_][\w.+-]*>")


def fold(name: str) -> str:
    """The form in which names are compared: prompts do not tell upper from lower case (CLIP's tokenizer folds it)."""
    return name.casefold()


class Names:
    """Concepts' names, as prompts are read: in any case, `<ada>` anywhere, `ada` as a whole word alone."""

    def __init__(self, names: Iterable[str]):
        self._of = {fold(name): name for name in names}
        # The longest first, so that <ada-2> is not <ada>.
        patterns = map(_pattern, sorted(self._of.values(), key=len, reverse=True))
        self._pattern = "|".join(patterns)

    def __contains__(self, name: str) -> bool:
        return fold(name) in self._of

    def replaced(self, text: str, replace: Callable[[str], str], prefix: str = "") -> str:
        """`text` with each name in it, and `prefix` where it stands before one, replaced by replace(the name)."""
        if not self._of:
            return text
        pattern = rf"(?:{re.escape(prefix)})?(?:{self._pattern})" if prefix else self._pattern
        return re.sub(
            pattern, lambda found: replace(self._name(found[0].removeprefix(prefix))), text, flags=re.IGNORECASE
        )

    def _name(self, text: str) -> str:
        return self._of[fold(text)]

    def strange(self, text: str) -> list[str]:
        """Words in angle brackets that `text` holds and that are none of the names."""
        return [word for word in dict.fromkeys(_BRACKETED.findall(text)) if word not in self]


def unowned(texts: Iterable[str], names: Iterable[str]) -> list[str]:
    """Words in angle brackets that `texts` hold and that are none of `names`."""
    known = Names(names)
    return list(dict.fromkeys(word for text in texts for word in known.strange(text)))


def bracketed(texts: Iterable[str]) -> list[str]:
    """All words in angle brackets that `texts` hold."""
    return unowned(texts, ())


def _pattern(name: str) -> str:
    if name.startswith("<") or name.endswith(">"):
        return re.escape(name)
    return rf"(?<!\w)(?<!\w-){re.escape(name)}(?!\w|-\w)"
