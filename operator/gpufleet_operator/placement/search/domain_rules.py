"""Finds the nodes that the domain rules of a request reject, given the replicas that are already placed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.columns import Mask
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import DomainRule, FilterReason, RuleKind
from gpufleet_operator.placement.search.filters import CODES

_OUTSIDE = -1


class RuleState:
    """The rules of one request as arrays over the rows of the fleet. `add` counts a placed replica."""

    def __init__(self, fleet: Fleet, rules: Sequence[DomainRule]) -> None:
        self._rules = [_RuleArrays(fleet, rule) for rule in rules]
        self._codes: NDArray[np.uint8] | None = None

    def codes(self) -> NDArray[np.uint8]:
        """Returns (rows,): the code of the first rule that rejects the node, 0 if none. Do not modify it."""
        if self._codes is None:
            first, *others = [np.where(rule.rejected(), np.uint8(rule.code), np.uint8(0)) for rule in self._rules]
            for codes in others:
                np.copyto(first, codes, where=first == 0)
            self._codes = first
        return self._codes

    def rejected(self) -> list[int]:
        """Returns the rows that a rule rejects."""
        return np.flatnonzero(self.codes()).tolist()

    def add(self, row: int) -> None:
        """Counts a replica that is placed on this row."""
        for rule in self._rules:
            rule.add(row)
        self._codes = None

    @property
    def reasons(self) -> frozenset[FilterReason]:
        """The reasons that the rules can reject a node for."""
        return frozenset(rule.rule.reason for rule in self._rules)

    def message(self, row: int | None) -> str:
        """Returns the message of the first rule that rejects the row; empty if none does."""
        rejecting = (rule.message(row) for rule in self._rules if row is not None and rule.rejected()[row])
        return next(rejecting, "")

    @property
    def may_start_anywhere(self) -> bool:
        """True if the first replica determines the domain of the others."""
        return any(rule.may_start_anywhere for rule in self._rules)

    def usable(self, room: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns (rows,): the replicas that fit on each node under the rules, 0 outside of the best domains.

        Args:
            room: (rows,), replicas that fit on each node without the rules.
        """
        room = np.where(self.codes() == 0, room, 0)
        for rule in self._rules:
            room = rule.limited(room)
        for rule in self._rules:
            if rule.may_start_anywhere:
                room = rule.in_best_domains(room)
        return room


class _RuleArrays:
    """One rule: the index of each row's domain, and the count of each domain."""

    def __init__(self, fleet: Fleet, rule: DomainRule) -> None:
        self.rule, self.code = rule, CODES[rule.reason]
        names = dict.fromkeys((*rule.domains.values(), *rule.counts))
        index = {name: at for at, name in enumerate(names)}
        self.domain: NDArray[np.intp] = np.full(fleet.columns.rows, _OUTSIDE, np.intp)
        for node, domain in rule.domains.items():
            row = fleet.row(node)
            if row is not None:
                self.domain[row] = index[domain]
        self.counts = np.array([rule.counts.get(name, 0) for name in names], np.int64)

    @property
    def may_start_anywhere(self) -> bool:
        rule = self.rule
        return rule.kind is RuleKind.TOGETHER and rule.counts_replicas and not self.counts.any()

    def add(self, row: int) -> None:
        if self.rule.counts_replicas and self.domain[row] != _OUTSIDE:
            self.counts[self.domain[row]] += 1

    def message(self, row: int | None) -> str:
        outside = row is not None and self.domain[row] == _OUTSIDE
        return (outside and self.rule.outside_message) or self.rule.message

    def rejected(self) -> Mask:
        """Returns (rows,): whether the rule rejects the node of each row."""
        rule, outside = self.rule, self.domain == _OUTSIDE
        if not len(self.counts):
            return outside if rule.kind is not RuleKind.APART else np.zeros(len(outside), np.bool_)
        count = self.counts[self.domain]
        rejected: Mask
        match rule.kind:
            case RuleKind.APART:
                rejected = ~outside & (count > 0)
            case RuleKind.TOGETHER:
                rejected = outside | ((count == 0) & (not self.may_start_anywhere))
            case RuleKind.SPREAD:
                lowest = self.counts.min() if len(self.counts) >= rule.min_domains else 0
                rejected = outside | (count + rule.counts_replicas - lowest > rule.max_skew)
        return rejected

    def limited(self, room: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the room of each row if replicas must be apart: one in the first row with room of each domain."""
        if self.rule.kind is not RuleKind.APART or not self.rule.counts_replicas:
            return room
        inside = np.flatnonzero((self.domain != _OUTSIDE) & (room > 0))
        _, first = np.unique(self.domain[inside], return_index=True)
        limited = np.where(self.domain == _OUTSIDE, room, 0)
        limited[inside[first]] = 1
        return limited

    def in_best_domains(self, room: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the room of the rows in the domains with the largest sum, 0 elsewhere."""
        inside = self.domain != _OUTSIDE
        total = np.bincount(self.domain[inside], room[inside], len(self.counts))
        best = np.zeros(len(room), np.bool_)
        best[inside] = total[self.domain[inside]] == total.max(initial=0)
        return np.where(best, room, 0)
