"""An operator whose watches of different kinds lag independently, each in its order."""

from random import Random

from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import CHECKED, OperatorProcess

_LAGS = (0, 2, 10, 1000)
"""How many versions of objects, of all kinds, a watch advances by."""


class LaggingOperator(OperatorProcess):
    """A process that hears of some kinds earlier than of others, as the real one does."""

    def __init__(self, cluster: FakeCluster, random: Random, *, checked: bool = CHECKED) -> None:
        self.positions: dict[str, int] = {}
        self._random = random
        super().__init__(cluster, checked=checked)

    def relist(self) -> None:
        super().relist()
        self.positions = dict.fromkeys(self.stores(), self.position)

    def hear_some(self) -> None:
        """Delivers the next events of each watch, of some more than of others."""
        for kind, position in self.positions.items():
            end = min(len(self.cluster.log), position + self._random.choice(_LAGS))
            for event, found, body in self.cluster.log[position:end]:
                if found == kind:
                    self.see(event, kind, body)
            self.positions[kind] = end
