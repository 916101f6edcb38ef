"""Records which rows changed since a version, so that results are updated instead of recomputed."""


class ChangeLog:
    """One entry per version. Old entries are dropped; a caller with an older version must read every row."""

    def __init__(self, version: int = 0) -> None:
        self._oldest = version
        self._rows: list[int] = []
        self._answers: dict[int, list[int]] = {}
        """Results of `since`, until the next change."""

    @property
    def version(self) -> int:
        """Increases by one with each change."""
        return self._oldest + len(self._rows)

    def add(self, row: int, rows: int) -> None:
        """Records a change of `row` in a fleet of `rows` rows."""
        self._rows.append(row)
        self._answers.clear()
        if len(self._rows) > 4 * rows + 1024:
            dropped = len(self._rows) // 2
            del self._rows[:dropped]
            self._oldest += dropped

    def since(self, version: int) -> list[int] | None:
        """Returns the rows that changed after `version`, ascending; None if unknown. Do not modify the list."""
        if version < self._oldest:
            return None
        answer = self._answers.get(version)
        if answer is None:  # several callers pass the same version
            changed = self._rows[version - self._oldest :]
            answer = self._answers[version] = changed if len(changed) == 1 else sorted(set(changed))
        return answer
