"""`python -m pipelines` is `vlp`."""

from pipelines.commands.main import main

main()
