-- One person under several spellings of a domain is one: what counts, gathers and remembers goes by the person.
ALTER TABLE cases ADD COLUMN person TEXT NOT NULL DEFAULT '';        -- the sender, its domain in ASCII form; '' is the null sender
CREATE INDEX cases_by_person ON cases (person, state, arrival);
-- What the sender wrote: another address, or none at all (always_bcc, recipient_bcc_maps, sender_bcc_maps, milters).
ALTER TABLE recipients ADD COLUMN written TEXT NOT NULL DEFAULT '';
ALTER TABLE recipients ADD COLUMN unwritten INTEGER NOT NULL DEFAULT 0;
