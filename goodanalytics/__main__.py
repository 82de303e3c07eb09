"""`python -m goodanalytics`: the command line without an installed script."""

from goodanalytics.cli import main

main(prog_name="goodanalytics")
