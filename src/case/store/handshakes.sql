-- Domains with which TLS handshakes have failed within the last hour: several at once are perhaps our own fault.
CREATE TABLE handshakes (
    domain   TEXT NOT NULL PRIMARY KEY,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    burst_at INTEGER                      -- when it was last seen as one of several
) STRICT, WITHOUT ROWID;
