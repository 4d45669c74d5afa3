-- What the holder of a lease last said of its work. SCHEMA.md explains the columns.

ALTER TABLE {schema}.consumer_leases
    ADD COLUMN phase         text COLLATE "C" CHECK (phase IN ('running', 'paused', 'draining', 'halted')),
    ADD COLUMN in_flight     bigint CHECK (in_flight >= 0),
    ADD COLUMN keys_retrying bigint CHECK (keys_retrying >= 0),
    ADD COLUMN retries       bigint CHECK (retries >= 0),
    ADD COLUMN reported_at   timestamptz,
    ADD CONSTRAINT consumer_leases_report CHECK (
        num_nulls(phase, in_flight, keys_retrying, retries, reported_at) IN (0, 5)
    );
