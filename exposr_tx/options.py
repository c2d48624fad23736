"""Command lines that are also environment variables: what both programs' options share.

:class:`EnvironOptions` is Twisted's ``usage.Options`` with four habits more:

* an option that is not on the line is looked for in the environment, as
  ``EXPOSR_`` and its name in capitals (``--api-port`` is ``EXPOSR_API_PORT``);
* options may stand anywhere on the line, before and after what they do not
  belong to, also around the names of sub-commands;
* a value that is wrong gives one line that names the option, the value and
  what it must be;
* variables that begin with ``EXPOSR_`` and mean nothing are warned of.

What turns the text of a value into the value is in :mod:`exposr_tx.option_values`.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from twisted.python import usage

from exposr_tx.option_values import boolean, shown

__all__ = ["EnvironOptions"]

# These end the program; they come after everything that changes what they print.
_LAST = ("help", "version")


def _closest(name: str, known: Iterable[str]) -> str:
    """What a misspelt name probably means, or an empty string."""
    # Only here: most command lines are right, and what a client loads it keeps.
    import difflib  # noqa: PLC0415

    return next(iter(difflib.get_close_matches(name, known, n=1)), "")


def _written(default: Any) -> str | None:
    """A default as one would write it on the line; None where there is nothing to write."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or None
    return f"{default:g}" if isinstance(default, float) else default


class EnvironOptions(usage.Options):
    """``usage.Options`` that also reads the environment; see the module.

    ``optFlags``, ``optParameters``, ``opt_*`` and ``subCommands`` are Twisted's.

    :cvar prefix: what the variables begin with.
    :cvar aliases: other names of options, for the line and for the environment.
    :cvar lists: options that may be given several times and then add up; their
        coercion is a :func:`comma_list`. (An ``opt_name`` method is called each
        time as well, with no splitting at commas.)
    :cvar hidden: options that ``--help`` does not show.
    :cvar secret: options whose value no error may repeat.
    :cvar switches: options of true or false that are true by themselves, as flags are.
    :ivar environ: where variables are looked up; a sub-command takes its parent's.
    :ivar given: for each option that was set, what it was set by: ``"--api-port"``
        or ``"EXPOSR_API_PORT"``.
    :ivar warnings: lines for the log, collected while parsing.
    """

    prefix: ClassVar[str] = "EXPOSR_"
    aliases: ClassVar[Mapping[str, str]] = {}
    lists: ClassVar[frozenset[str]] = frozenset()
    hidden: ClassVar[frozenset[str]] = frozenset()
    secret: ClassVar[frozenset[str]] = frozenset()
    switches: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._environ = environ
        self.given: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self.warnings: list[str] = []
        self._takes_value = {name.rstrip("="): name.endswith("=") for name in self.longOpt}
        self._coerce: dict[str, Callable[[str], Any]] = {
            parameter[0]: parameter[4]
            for kind in type(self).__mro__
            for parameter in kind.__dict__.get("optParameters", ())
            if len(parameter) > 4 and parameter[4] is not None
        }

    @property
    def environ(self) -> Mapping[str, str]:
        if self._environ is not None:
            return self._environ
        return self.parent.environ if isinstance(self.parent, EnvironOptions) else os.environ

    # What the line and the environment say

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse a command line (the process's own by default), then the environment.

        Raises ``usage.UsageError`` with a message of one line.
        """
        words = list(sys.argv[1:] if options is None else options)
        if "--_shell-completion" in words:
            super().parseOptions(words)  # type: ignore[no-untyped-call]
            return
        mine, rest = self._sort(words)
        found: dict[str, list[str]] = {}
        for name, text, source in mine:
            if not self._adds_up(name):
                found[name] = []
            found.setdefault(name, []).append(text)
            self.given[name] = source
        for name, text, source in self._from_environ():
            if name not in found:
                found[name] = [text]
                self.given[name] = source
        line = []
        for name in sorted(found, key=lambda name: name in _LAST):
            texts = [",".join(found[name])] if name in self.lists else found[name]
            if self._may_be_told(name):
                self._texts[name] = texts[0]
            for text in texts:
                self._check(name, text)
                if self._takes_value[name]:
                    line.append(f"--{name}={text}")
                elif boolean(text):
                    line.append(f"--{name}")
        if not isinstance(self.parent, EnvironOptions):
            self._warn_of_unknown_variables()
        super().parseOptions([*line, "--", *rest])  # type: ignore[no-untyped-call]

    def _may_be_told(self, name: str) -> bool:
        """Whether errors may repeat an option's value. Methods tell what they like themselves."""
        called = hasattr(self, "opt_" + name.replace("-", "_"))
        return self._takes_value[name] and not called and name not in self.secret

    def _adds_up(self, name: str) -> bool:
        return name in self.lists or hasattr(self, "opt_" + name.replace("-", "_"))

    def error(self, name: str, text: str) -> usage.UsageError:
        """An error about an option, named with its value as the user gave them.

        >>> raise self.error("api-url", "must have no path")
        """
        value = f" {shown(self._texts[name])}" if name in self._texts else ""
        return usage.UsageError(f"{self.source(name)}{value}: {text}")

    def source(self, name: str) -> str:
        """What an option was set by, such as ``--api-port`` or ``EXPOSR_API_PORT``."""
        return self.given.get(name, f"--{name}")

    def _check(self, name: str, text: str) -> None:
        check = self._coerce.get(name) if self._takes_value[name] else boolean
        if check is None:
            return
        try:
            check(text)
        except ValueError as problem:
            value = "" if name in self.secret else f" {shown(text)}"
            raise usage.UsageError(f"{self.given[name]}{value}: {problem}") from None

    def _sort(self, words: list[str]) -> tuple[list[tuple[str, str, str]], list[str]]:
        """Split a line into our options, as (name, text, source), and what is not ours.

        With sub-commands, options that only those know go behind the
        command's name; without, an unknown option is an error.
        """
        mine: list[tuple[str, str, str]] = []
        theirs: list[str] = []
        arguments: list[str] = []
        pending = deque(words)
        while pending:
            word = pending.popleft()
            if word == "--":
                arguments += [word, *pending] if self._commands() else pending
                break
            if not word.startswith("-") or word == "-":
                arguments.append(word)
            elif (known := self._recognise(word)) is not None:
                mine += self._values(known, word, pending)
            else:
                for sub in self._descendants():
                    if (known := sub._recognise(word)) is not None:
                        theirs.append(word)
                        if sub._wants_next(known, word, pending):
                            theirs.append(self._next(word, pending))
                        break
                else:
                    raise self._unknown(word)
        return mine, arguments[:1] + theirs + arguments[1:]

    def _recognise(self, word: str) -> list[str] | None:
        """The long names that a word of the line sets: one, or several short ones."""
        if word.startswith("--"):
            name = word[2:].partition("=")[0]
            name = self.aliases.get(name, name)
            return [name] if name in self._takes_value else None
        names: list[str] = []
        for letter in word[1:]:
            long = self.synonyms.get(letter)
            if long is None:
                return None
            names.append(long)
            if self._takes_value[long]:
                break
        return names

    def _wants_next(self, names: list[str], word: str, pending: deque[str]) -> bool:
        """Whether the value of the last option in a word is the next word.

        A flag may be followed by true or false, as exposr's own are.
        """
        if "=" in word if word.startswith("--") else len(word) > len(names) + 1:
            return False
        if self._takes_value[names[-1]] and names[-1] not in self.switches:
            return True
        return bool(pending) and pending[0] in ("true", "false")

    def _values(
        self, names: list[str], word: str, pending: deque[str]
    ) -> Iterator[tuple[str, str, str]]:
        if word.startswith("--"):
            source, equals, text = word.partition("=")
            text = text if equals else "true"
        else:
            source, text = "--" + names[-1], word[len(names) + 1 :].removeprefix("=") or "true"
            for name in names[:-1]:
                yield name, "true", "--" + name
        if self._wants_next(names, word, pending):
            text = self._next(word, pending)
        yield names[-1], text, source

    def _next(self, word: str, pending: deque[str]) -> str:
        if not pending:
            raise usage.UsageError(f"{word}: needs a value")
        return pending.popleft()

    def _unknown(self, word: str) -> usage.UsageError:
        name = word.lstrip("-").partition("=")[0]
        close = _closest(name, self._takes_value.keys() - self.hidden)
        hint = f"did you mean --{close}?" if close else "--help lists the options"
        return usage.UsageError(f"{word.partition('=')[0]}: no such option; {hint}")

    # The environment

    def _variables(self) -> dict[str, str]:
        """Variable name to long option name."""
        names = [name for name in self._takes_value if name not in _LAST]
        return {
            self.prefix + name.upper().replace("-", "_"): self.aliases.get(name, name)
            for name in (*names, *self.aliases)
        }

    def _from_environ(self) -> Iterator[tuple[str, str, str]]:
        for variable, name in self._variables().items():
            # Compose files and units set variables to nothing when they mean "not set".
            if text := self.environ.get(variable, ""):
                yield name, text, variable

    def _warn_of_unknown_variables(self) -> None:
        known = set(self._variables())
        for sub in self._descendants():
            known |= set(sub._variables())
        for variable in sorted(self.environ):
            if variable.startswith(self.prefix) and variable not in known:
                # Without what all have in common, or everything would be alike.
                bare = {name.removeprefix(self.prefix): name for name in known}
                close = bare.get(_closest(variable.removeprefix(self.prefix), bare), "")
                hint = f"; did you mean {close}?" if close else ""
                self.warnings.append(f"{variable} is set and names no option{hint}")

    # Sub-commands

    def _commands(self) -> Sequence[tuple[str, Any, Callable[[], usage.Options], str]]:
        return getattr(self, "subCommands", None) or ()

    def _descendants(self) -> Iterator[EnvironOptions]:
        for _name, _short, parser, _doc in self._commands():
            sub = parser()
            if isinstance(sub, EnvironOptions):
                yield sub
                yield from sub._descendants()

    # Help

    def getUsage(self, width: int | None = None) -> str:
        everything, defaults = self.longOpt, self.defaults
        if not self.get("show-hidden"):
            self.longOpt = [name for name in everything if name.rstrip("=") not in self.hidden]
        self.defaults = {name: _written(value) for name, value in defaults.items()}
        try:
            return str(super().getUsage(width))
        finally:
            self.longOpt, self.defaults = everything, defaults
