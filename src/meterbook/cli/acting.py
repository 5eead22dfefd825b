"""Who acts where a command changes what others rely on: noted before it is done, as over HTTP and in the console."""

import getpass


def by_whom() -> str:
    """The user of the machine: a command has no key."""
    return f"command line ({getpass.getuser()})"
