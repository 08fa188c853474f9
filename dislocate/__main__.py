"""`python -m dislocate` and the `dislocate` command."""

from dislocate.cli.main import cli


def main() -> None:
    cli(prog_name="dislocate")


if __name__ == "__main__":
    main()
