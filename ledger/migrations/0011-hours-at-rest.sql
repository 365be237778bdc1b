-- A large hour is compared when it rests, not while it is being written to (rollup-check.ts): `changed_at` is when a
-- change of it was noted last, NULL for hours that were noted before this column was there.
ALTER TABLE check_waiting ADD COLUMN changed_at timestamptz, ADD COLUMN put_off_until timestamptz;
