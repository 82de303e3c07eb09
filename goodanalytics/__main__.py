"""`python -m goodanalytics`: the command line without an installed script."""

from goodanalytics.cli.commands import main

main(prog_name="goodanalytics")
