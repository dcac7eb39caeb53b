"""Whether processes are there."""


def gone(pid: int) -> bool:
    """Whether a process has ended, reaped by its parent or not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True
