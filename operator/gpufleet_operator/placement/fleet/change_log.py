"""Which rows changed since a version: what lets a ranking be brought up to date instead of made anew."""


class ChangeLog:
    """One entry per version. Old entries are dropped; whoever asks for more than is kept must look at every row."""

    def __init__(self, version: int = 0) -> None:
        self._oldest = version
        self._rows: list[int] = []
        self._told: dict[int, list[int]] = {}
        """Answers of `since`, until there is another change."""

    @property
    def version(self) -> int:
        """Rises by one with each change."""
        return self._oldest + len(self._rows)

    def add(self, row: int, rows: int) -> None:
        """Note a change of `row` in a fleet of `rows`."""
        self._rows.append(row)
        self._told.clear()
        if len(self._rows) > 4 * rows + 1024:
            dropped = len(self._rows) // 2
            del self._rows[:dropped]
            self._oldest += dropped

    def since(self, version: int) -> list[int] | None:
        """The rows that changed after `version`, ascending; None: any of them may have. Not to be changed."""
        if version < self._oldest:
            return None
        told = self._told.get(version)
        if told is None:  # several ask the same, one after the other
            changed = self._rows[version - self._oldest :]
            told = self._told[version] = changed if len(changed) == 1 else sorted(set(changed))
        return told
