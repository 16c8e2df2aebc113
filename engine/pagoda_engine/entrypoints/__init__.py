"""One module a command of the engine's side, each with `main(argv) -> exit code`, found through the entry points."""
