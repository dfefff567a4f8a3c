-- The reference of a rollout's release, so that what was rolled out under it is found however much came after it.
ALTER TABLE rollouts ADD COLUMN image TEXT;
UPDATE rollouts SET image = (
    SELECT json_extract(plan, '$.request.target.image') FROM rollout_plans WHERE rollout_seq = seq
);
CREATE INDEX rollouts_of_image ON rollouts (image, seq);
