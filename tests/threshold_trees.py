"""Random expressions with `at_least`, of event sets or of sets."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Tree", "counted", "ids", "trees"]

#: Bitmaps of very different lengths.
ids = st.one_of(st.integers(0, 20), st.sampled_from([8_191, 65_500, 600_000]))


def counted(number: int, sets: Iterable[set[int]]) -> set[int]:
    """Return who is in at least so many sets."""
    return {
        user
        for user, count in Counter(user for each in sets for user in each).items()
        if count >= number
    }


class Tree:
    """A random expression: of event sets, and of sets."""

    def __init__(self, draw: Callable[[Any], Any], leaves: int, depth: int) -> None:
        self.kind = draw(st.sampled_from("l" if not depth else "lttt&|^-"))
        parts = 0 if self.kind == "l" else draw(st.integers(1, 8)) if self.kind == "t" else 2
        self.leaf = draw(st.integers(0, leaves - 1))
        self.parts = [Tree(draw, leaves, depth - 1) for _ in range(parts)]
        self.number = draw(st.integers(1, max(1, parts)))

    def of(self, sets: Sequence[Any], threshold: Callable[..., Any]) -> Any:
        if self.kind == "l":
            return sets[self.leaf]
        parts = [part.of(sets, threshold) for part in self.parts]
        if self.kind == "t":
            return threshold(self.number, parts)
        return {
            "&": lambda a, b: a & b,
            "|": lambda a, b: a | b,
            "^": lambda a, b: a ^ b,
            "-": lambda a, b: a - b,
        }[self.kind](*parts)


@st.composite
def trees(draw: Any, leaves: int = 7, depth: int = 3) -> Tree:
    return Tree(draw, leaves, depth)
