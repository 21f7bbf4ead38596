"""Ends what a stack left running when its supervisor was killed."""

from deploy import processes
from deploy.home import Home
from deploy.postgres_files import data_places
from deploy.state import StackState


async def clean(home: Home, state: StackState) -> list[str]:
    """Stop every process of this home, the recorded ones in good order. Only for the holder of the lock.

    Returns:
        What had to be stopped.
    """
    stopped = []
    for name, record in reversed(state.services.items()):
        process = processes.find(record.process)
        if process is not None:
            await processes.stop_tree(process, record.stop_signal, record.stop_timeout)
            stopped.append(name)
    stopped += ["postgres" for data in data_places(home, state.postgres) if await processes.stop_postgres(data)]
    unrecorded = processes.marked(home.root)
    await processes.kill(unrecorded)
    return stopped + [f"pid {process.pid}" for process in unrecorded]
