"""What this distribution offers. Imports no torch."""

from preimage import Command, hookimpl


@hookimpl
def preimage_commands() -> list[Command]:
    return [
        Command("tune", "preimage_tune.commands:tune", "Search the parameters of a suite's methods; write presets.")
    ]
