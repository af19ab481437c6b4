-- Whose mail it was, too: one sender must not bring the suspicion about alone. What was there is an hour's memory.
DROP TABLE handshakes;
CREATE TABLE handshakes (
    domain   TEXT NOT NULL,
    sender   TEXT NOT NULL,               -- as in cases.person
    first_at INTEGER NOT NULL,            -- of the domain, whoever wrote
    last_at  INTEGER NOT NULL,
    burst_at INTEGER,                     -- when it was last seen as one of several
    PRIMARY KEY (domain, sender)
) STRICT, WITHOUT ROWID;
