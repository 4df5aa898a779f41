"""`python -m gateway.cli`: the same as the console script `mingluo`."""

from gateway.cli import main

main()
