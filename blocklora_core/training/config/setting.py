"""One setting: its default, its limits and its flat name; and the sections that hold settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple, TypeVar


class Limit(NamedTuple):
    """What values a setting takes, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def at_least(least: int) -> Limit:
    return Limit(f"at least {least}", lambda value: value >= least)


def one_of(table: Collection[str]) -> Limit:
    return Limit(f"one of {', '.join(table)}", lambda value: value in table)


SHARE = Limit("0 to 1", lambda value: 0 <= value <= 1)
POSITIVE = Limit("more than 0", lambda value: value > 0)
DECAY = Limit("0 or more and less than 1", lambda value: 0 <= value < 1)


def setting(default: Any, limit: Limit | None = None, flat: str | None = None) -> Any:
    """A field of a section. flat: its flat name, where that is not the section's prefix and its own name."""
    return field(default=default, metadata={"limit": limit, "flat": flat})


@dataclass(frozen=True)
class Section:
    """Settings of one job. Raises ValueError, with the setting's flat name, when one is out of range."""

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for one in fields(self):
            limit, value = one.metadata.get("limit"), getattr(self, one.name)
            if limit is not None and not limit.holds(value):
                raise ValueError(f"{self._flat_name(one)}: expected {limit.words}, got {value!r}.")

    def _flat_name(self, one: Field[Any]) -> str:
        return one.metadata.get("flat") or self.prefix + one.name

    def flat(self) -> dict[str, Any]:
        """Flat name -> value, of these settings and of the sections within."""
        found: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            found |= value.flat() if isinstance(value, Section) else {self._flat_name(one): value}
        return found


SectionT = TypeVar("SectionT", bound=Section)


def with_flat(section: SectionT, given: Mapping[str, Any]) -> SectionT:
    """`section` with what is given by flat name, in it and in the sections within; other names are left alone."""
    new = {}
    for one in fields(section):
        value = getattr(section, one.name)
        new[one.name] = (
            with_flat(value, given) if isinstance(value, Section) else given.get(section._flat_name(one), value)
        )
    return replace(section, **new)
