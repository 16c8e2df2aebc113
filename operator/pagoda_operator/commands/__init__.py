"""Entry points of the `pagoda` command that belong to the operator; each module has one `main(argv)`."""
