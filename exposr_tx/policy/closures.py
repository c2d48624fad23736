"""What a comprehension sees of the variables around it, as Rego has it.

``{y | y := table[x][_]}`` with an ``x`` from outside has what is in ``table[x]``. The embedded
engine takes an ``x`` that is a function's argument, or was found by iteration or in a pattern, for
a new variable where it stands in brackets or in front of the ``|`` only: it gives what is in the
whole table, and everybody would have everybody's rights (tried). Where it is assigned first, it is
right: ``{y | x_1 := x; y := table[x_1][_]}``. Likewise a comprehension's own variable needs
another name than those outside have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count

from exposr_tx.policy.variables import Scope
from exposr_tx.policy.words import NAME, Word, edited, is_member

__all__ = ["captured"]


def captured(text: str, found: Sequence[Word], within: Iterable[Scope]) -> str:
    """A module's text with comprehensions that assign what they take from outside. Lines stay
    where they are.

    :param within: the scopes of its rules.
    """
    renaming = _Renaming(found)
    for scope in within:
        renaming.visit(scope, _unchanged(scope))
    edits = sorted(renaming.edits.items())
    return edited(text, ((found[place].start, found[place].end, new) for place, new in edits))


def _unchanged(scope: Scope) -> dict[str, str]:
    return {name: name for name in (scope.declared | scope.bound.keys()) - {"_"}}


class _Renaming:
    """Names for the variables of comprehensions.

    :ivar edits: what stands in place of words, by their places.
    """

    def __init__(self, found: Sequence[Word]) -> None:
        self.edits: dict[int, str] = {}
        self._found = found
        self._taken = {word.text for word in found}
        self._numbers = count(1)

    def visit(self, scope: Scope, visible: Mapping[str, str]) -> None:
        """Rename what is within a scope.

        :param visible: the variables that it sees, and how they are called now.
        """
        for inner in scope.inner:
            if not inner.bar:  # an every, which sees them as it should, and has no comprehension
                continue
            free = self._free(inner) & visible.keys()
            for name in () if inner.last else sorted(free):
                if scope.bound.get(name, 0) > inner.bar:
                    free.discard(name)
                    if name not in scope.declared:
                        scope.loose.append(self._found[scope.bound[name]])
            new = {
                name: self._fresh(name) for name in sorted(free | inner.declared & visible.keys())
            }
            for place in self._variables(inner):
                if renamed := new.get(self._found[place].text):
                    self.edits[place] = renamed
            taken = [f" {new[name]} := {visible[name]};" for name in sorted(free)]
            if taken:
                self.edits[inner.bar] = f"|{''.join(taken)}"
            self.visit(inner, {**_unchanged(inner), **visible, **new})

    def _fresh(self, name: str) -> str:
        made = next(made for n in self._numbers if (made := f"{name}_{n}") not in self._taken)
        self._taken.add(made)
        return made

    def _free(self, scope: Scope) -> set[str]:
        """Names that are used in a scope and are not its own."""
        used = {self._found[place].text for place in self._variables(scope)}
        return used.union(*[self._free(inner) for inner in scope.inner]) - scope.declared

    def _variables(self, scope: Scope) -> Iterator[int]:
        """Places of a scope's own words that may be variables."""
        for place in scope.own:
            word = self._found[place]
            following = self._found[min(place + 1, len(self._found) - 1)]
            called = following.text == "(" and following.glued
            if word.kind == NAME and not is_member(self._found, place) and not called:
                yield place
