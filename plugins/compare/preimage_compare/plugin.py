"""What this distribution offers. Imports no torch."""

from preimage import Command, hookimpl


@hookimpl
def preimage_commands() -> list[Command]:
    return [Command("compare", "preimage_compare.cli:compare", "Compare methods on the same measurements, and report.")]
