"""`python -m preimage`: the same as the `preimage` command."""

from ._cli import main

main()
