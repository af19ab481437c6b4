-- When it was last looked at what is to be forgotten, by the host's clock: the next look tells from it whether that clock
-- can be believed. One row at most.
CREATE TABLE last_look (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    at          INTEGER NOT NULL,         -- Unix milliseconds
    doubt_until INTEGER                   -- until then nothing is forgotten; NULL: the clock is believed
) STRICT;
