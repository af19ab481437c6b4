-- A case's whole life: who is asked, what is owed to whom, how it ends, and what may be forgotten.

ALTER TABLE cases ADD COLUMN source TEXT NOT NULL DEFAULT 'notice';
ALTER TABLE cases ADD COLUMN asked TEXT NOT NULL DEFAULT 'sender';
ALTER TABLE cases ADD COLUMN closed_at INTEGER;
ALTER TABLE cases ADD COLUMN closed_why TEXT;
ALTER TABLE cases ADD COLUMN reminders INTEGER NOT NULL DEFAULT 0;   -- how many were sent
ALTER TABLE cases ADD COLUMN remind_at INTEGER;                      -- when the next one is due
ALTER TABLE cases ADD COLUMN redacted_at INTEGER;                    -- personal data was removed
UPDATE cases SET closed_why = 'unknown',
    closed_at = coalesce((SELECT max(at) FROM events WHERE case_id = cases.id AND what = 'closed'), opened_at)
WHERE state = 'closed';
ALTER TABLE cases ADD COLUMN told_at INTEGER;                        -- when the sender was last told that recipients wait
ALTER TABLE cases DROP COLUMN claimed_at;                            -- the table letters has the claims
CREATE INDEX cases_to_remind ON cases (remind_at) WHERE remind_at IS NOT NULL;
CREATE INDEX cases_by_sender ON cases (sender, state, arrival);
CREATE INDEX cases_by_opening ON cases (opened_at);
CREATE INDEX cases_to_redact ON cases (closed_at) WHERE closed_at IS NOT NULL AND redacted_at IS NULL;

ALTER TABLE recipients ADD COLUMN domain TEXT NOT NULL DEFAULT '';   -- ASCII form; '' when there is none
ALTER TABLE recipients ADD COLUMN stuck_at INTEGER;
ALTER TABLE recipients ADD COLUMN passage TEXT;                      -- what the may instance did
ALTER TABLE recipients ADD COLUMN passage_at INTEGER;
ALTER TABLE recipients ADD COLUMN passage_detail TEXT;
CREATE INDEX recipients_by_domain ON recipients (domain, stuck_at);
-- Released, and not known to have ended in the may instance.
CREATE INDEX recipients_under_way ON recipients (address) WHERE state = 'released' AND (passage IS NULL OR passage = 'deferred');

-- Senders by the number that the link to all of their messages carries.
CREATE TABLE senders (
    id      INTEGER PRIMARY KEY,          -- random
    address TEXT NOT NULL UNIQUE
) STRICT;

-- What senders are still to be told, recipient by recipient.
CREATE TABLE owed (
    recipient_id INTEGER NOT NULL REFERENCES recipients (id),
    news         TEXT NOT NULL,
    sender       TEXT NOT NULL,
    since        INTEGER NOT NULL,        -- Unix milliseconds
    PRIMARY KEY (recipient_id, news)
) STRICT, WITHOUT ROWID;
CREATE INDEX owed_by_sender ON owed (sender, since);

-- Mails to senders: on their way, and sent within the time that the ceilings look at.
CREATE TABLE letters (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    sender     TEXT NOT NULL,             -- the addressee
    case_id    INTEGER REFERENCES cases (id), -- NULL: about several
    kind       TEXT NOT NULL,
    claimed_at INTEGER NOT NULL,
    sent_at    INTEGER                    -- NULL: on its way, or its process died
) STRICT;
CREATE INDEX letters_by_sender ON letters (sender, claimed_at);
CREATE INDEX letters_by_time ON letters (claimed_at);
CREATE INDEX letters_by_case ON letters (case_id) WHERE case_id IS NOT NULL;

-- What the admin is to be told, at most once a cause and hour.
CREATE TABLE alerts (
    cause   TEXT PRIMARY KEY,
    detail  TEXT NOT NULL,
    since   INTEGER NOT NULL,             -- when it was first raised after the last mail, in Unix milliseconds
    pending INTEGER NOT NULL,             -- how often it was raised since the last mail
    told_at INTEGER
) STRICT;

-- Domains that must be reached over TLS. Rows end, and stay: who and when.
CREATE TABLE mandatory_domains (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    domain     TEXT NOT NULL,
    added_at   INTEGER NOT NULL,
    added_by   TEXT NOT NULL,
    removed_at INTEGER,
    removed_by TEXT
) STRICT;
CREATE UNIQUE INDEX mandatory_now ON mandatory_domains (domain) WHERE removed_at IS NULL;

-- Choices that senders wanted to be remembered: to send unencrypted, for certain failures, for a time.
CREATE TABLE consents (
    id         INTEGER PRIMARY KEY,       -- random: links to revoke carry it
    sender     TEXT NOT NULL,
    scope      TEXT NOT NULL,
    target     TEXT NOT NULL,             -- an address, or a domain in ASCII form
    failures   TEXT NOT NULL,             -- names, joined by blanks
    client     TEXT NOT NULL,             -- address that it was given from
    granted_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ended_at   INTEGER,
    ended_why  TEXT,
    uses       INTEGER NOT NULL DEFAULT 0,
    used_at    INTEGER
) STRICT;
CREATE INDEX consents_in_force ON consents (sender, target) WHERE ended_at IS NULL;

ALTER TABLE decisions ADD COLUMN consent_id INTEGER REFERENCES consents (id);
CREATE INDEX decisions_by_consent ON decisions (consent_id) WHERE consent_id IS NOT NULL;

-- Events may be blanked when a case is redacted, and changed in no other way.
DROP TRIGGER events_are_not_changed;
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
WHEN NEW.id <> OLD.id OR NEW.at <> OLD.at OR NEW.case_id IS NOT OLD.case_id OR NEW.what <> OLD.what
    OR NEW.queue_id <> OLD.queue_id OR NEW.recipient <> '' OR NEW.detail <> ''
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE INDEX events_by_time ON events (at);

-- What posttls-ear heard of deliveries by the may instance and nobody has matched with a recipient yet.
CREATE TABLE hearings (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    copy_name TEXT NOT NULL,
    passage   TEXT NOT NULL,
    reply     TEXT NOT NULL,              -- the last one of the server
    heard_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX hearings_by_copy ON hearings (copy_name, id);
-- A copy's name is microseconds in five digits and its inode number.
CREATE INDEX moves_by_inode ON moves (substr(copy_name, 6)) WHERE copy_name IS NOT NULL;
CREATE INDEX moves_by_recipient ON move_recipients (recipient_id, move_id);
