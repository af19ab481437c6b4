-- Released mail that is not delivered for hours: its sender is told, once.
ALTER TABLE recipients ADD COLUMN waiting_owed_at INTEGER;           -- since when that is owed, or was told
