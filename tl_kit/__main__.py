"""``python -m tl_kit``: the command line."""

from tl_kit.cli import main

main()
