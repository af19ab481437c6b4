-- Which change of what a page tells of its recipients was the last one about this one, counted within the case; 0: none
-- yet. A form says up to which one its page knew.
ALTER TABLE recipients ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
