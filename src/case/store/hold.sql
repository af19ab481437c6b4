-- Since when an administrator holds the message in the encrypt instance, in Unix milliseconds.
ALTER TABLE cases ADD COLUMN held_at INTEGER;
