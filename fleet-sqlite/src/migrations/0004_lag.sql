-- Since when an instance has been behind: all three or none. What it runs tells whether it is still the same lag.
ALTER TABLE availability ADD COLUMN lag_runs TEXT;
ALTER TABLE availability ADD COLUMN lag_since TEXT;
ALTER TABLE availability ADD COLUMN lag_told INTEGER CHECK (lag_told IN (0, 1));
