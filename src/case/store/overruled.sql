-- An admin has said to send although a policy demands TLS: asked once more when the move begins.
ALTER TABLE move_recipients ADD COLUMN overruled INTEGER NOT NULL DEFAULT 0;
