"""Every error a user can meet: what was found, what was expected, and what to do about it.

Anything else that escapes from preimage is a defect of preimage.
"""

from collections.abc import Sequence


class PreimageError(Exception):
    """Base of all errors raised on purpose by preimage and its plugins.

    - `found`: what is wrong, naming the thing and the value that was met.
    - `expected`: what would have been accepted.
    - `remedy`: what to do next.
    """

    def __init__(self, found: str, expected: str = "", remedy: str = ""):
        super().__init__(found, expected, remedy)
        self.found, self.expected, self.remedy = found, expected, remedy

    def within(self, place: str, remedy: str = "") -> "PreimageError":
        """The same error, saying where it happened, and what to do if it did not say so itself."""
        return type(self)(f"{place}: {self.found}", self.expected, self.remedy or remedy)

    def __str__(self) -> str:
        lines = [self.found]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.remedy:
            lines.append(f"  remedy:   {self.remedy}")
        return "\n".join(lines)


class UnknownComponent(PreimageError, LookupError):
    """No plugin, installed or catalogued, offers this name."""


class NotInstalled(PreimageError, LookupError):
    """The name is in the catalogue, but its distribution is not installed."""


class BrokenPlugin(PreimageError, ImportError):
    """A plugin is installed but could not be imported, or breaks the contract of its hooks."""


class NameCollision(PreimageError, ValueError):
    """Two distributions register the same name for the same kind."""


class BadParameter(PreimageError, ValueError):
    """A parameter is unknown, missing, of the wrong type or outside its range."""


class Incompatible(PreimageError, TypeError):
    """The parts exist but do not fit together."""


class ShapeMismatch(PreimageError, ValueError):
    """A tensor does not have the shape that an operator, prior or problem declares."""


class BadData(PreimageError, ValueError):
    """Data that cannot be used: NaN, infinity, an unreadable or truncated file, an empty folder."""


class BadFile(PreimageError, OSError):
    """A file or folder cannot be read or written."""


class Diverged(PreimageError, ArithmeticError):
    """A run went wrong: NaN or infinity, or an iteration that moves away from every solution."""


class LawBroken(PreimageError, AssertionError):
    """A component breaks a law of its kind (see `preimage.testing`)."""


class SeveralProblems(PreimageError):
    """Everything that is wrong with a pipeline, in one message; `problems` has the single errors."""

    def __init__(self, heading: str, problems: Sequence[PreimageError]):
        super().__init__(heading)
        self.args = (heading, tuple(problems))
        self.problems = tuple(problems)

    def within(self, place: str, remedy: str = "") -> "SeveralProblems":
        return SeveralProblems(f"{place}: {self.found}", self.problems)

    def __str__(self) -> str:
        numbered = (f"{index}. {problem}".replace("\n", "\n   ") for index, problem in enumerate(self.problems, 1))
        return "\n".join((f"{self.found}: {len(self.problems)} problems", *numbered))


def raise_all(heading: str, problems: Sequence[PreimageError]) -> None:
    """Raise nothing for none, the error itself for one, `SeveralProblems` for more."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise SeveralProblems(heading, problems)
