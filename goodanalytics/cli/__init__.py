"""The command line: `commands` is the entrance, the other modules hold one family of commands each."""
