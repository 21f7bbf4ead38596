"""Who may do what to a stack: locks of the operating system, which end with their holder however it ends."""

import filelock

from deploy.home import Home


def supervisor_lock(home: Home) -> filelock.FileLock:
    """The lock whose holder alone may start, stop and record services."""
    # A soft lock would outlive a killed holder.
    return filelock.FileLock(home.run / "supervisor.lock", fallback_to_soft=False, thread_local=False)


def operation_lock(home: Home) -> filelock.FileLock:
    """The lock for deciding to start or stop, so that two commands at once do not cross."""
    return filelock.FileLock(home.run / "operation.lock", fallback_to_soft=False, thread_local=False)
