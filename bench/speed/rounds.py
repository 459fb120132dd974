"""Trains one network with every contender in turns, one block of steps each, round after round."""

import contextlib

from contenders import Contender, python_of

# Sentinel is settled when it has followed a plan for so many steps; others after so many steps of any kind.
MANAGED_STEPS = 4
SETTLING_STEPS = 5
SETTLING_STEPS_AT_MOST = 40


class Measured:
    """What the blocks of one contender took, by figure."""

    def __init__(self):
        self.blocks = []

    def per_step(self, figure):
        """One value per block: what a step took on average."""
        values = {"cpu_seconds": lambda block: block["user_seconds"] + block["system_seconds"]}
        read = values.get(figure, lambda block: block[figure])
        return [read(block) / block["steps"] for block in self.blocks]

    def mean(self, figure):
        """The mean over the blocks."""
        values = self.per_step(figure)
        return sum(values) / len(values)

    @property
    def last(self):
        """The last block."""
        return self.blocks[-1]


def settle(contender):
    """Runs steps until nothing changes any more, and returns the last answer."""
    answer, steps = contender.steps(SETTLING_STEPS), SETTLING_STEPS
    while contender.kind == "sentinel" and steps < SETTLING_STEPS_AT_MOST:
        stats = answer["stats"]
        if stats["steps_managed"] >= MANAGED_STEPS or stats["state"] == "unmanaged":
            break
        answer, steps = contender.steps(2), steps + 2
    return answer


@contextlib.contextmanager
def ready(network, kinds, arguments, more=()):
    """One process per kind, all with the network built; they end with the block."""
    standing = [Contender(kind, network, python_of(kind, arguments), more) for kind in kinds]
    try:
        for contender in standing:
            contender.await_ready()
        yield standing
    finally:
        for contender in standing:
            contender.close()


def measure(network, kinds, arguments):
    """Trains the network; returns what was measured, by kind: so many rounds of each of so many sets of processes.

    Every second round runs in the opposite order, so that whatever drifts meanwhile falls on all alike.
    """
    measured = {kind: Measured() for kind in kinds}
    for _ in range(arguments.sets):
        with ready(network, kinds, arguments) as standing:
            for contender in standing:
                settle(contender)
            for number in range(arguments.pairs):
                for contender in standing if number % 2 == 0 else standing[::-1]:
                    measured[contender.kind].blocks.append(contender.steps(arguments.block))
    return measured


def run_blocks(network, kinds, arguments, more, steps):
    """One block of steps of each kind from fresh variables, by kind."""
    with ready(network, kinds, arguments, more) as standing:
        return {contender.kind: contender.steps(steps) for contender in standing}
