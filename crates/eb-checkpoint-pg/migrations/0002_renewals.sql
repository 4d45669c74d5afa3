-- Reservations are renewed while their publishes are under way. Empty: never renewed.
ALTER TABLE {schema}.reservations ADD COLUMN renewed_at timestamptz;
