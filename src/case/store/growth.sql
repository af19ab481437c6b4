-- What keeps the cost of a look the same however many cases and moves there have been.

-- The lookout asks for the cases that are not closed, four times a second; those that are closed stay for months.
CREATE INDEX cases_unfinished ON cases (opened_at) WHERE state <> 'closed';
-- Each decision looks for other moves of its case.
CREATE INDEX moves_by_case ON moves (case_id);
CREATE INDEX moves_on_their_way ON moves (copy_name) WHERE copy_name IS NOT NULL AND step IN ('marked', 'requeued');
