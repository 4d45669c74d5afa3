-- What the workers of consumers share: marks, leases, dead letters. SCHEMA.md explains the columns.

CREATE TABLE {schema}.processed_events (
    subscriber_name text COLLATE "C" NOT NULL,
    bus_incarnation text COLLATE "C" NOT NULL,
    topic           text COLLATE "C" NOT NULL,
    partition_id    bigint NOT NULL CHECK (partition_id BETWEEN 0 AND 4294967295),
    offset_kind     text COLLATE "C" NOT NULL,
    "offset"        numeric NOT NULL CHECK ("offset" >= 0 AND scale("offset") = 0),
    event_id        text,
    dedupe_key      bytea CHECK (octet_length(dedupe_key) = 32),
    processed_at    timestamptz NOT NULL,
    PRIMARY KEY (subscriber_name, bus_incarnation, topic, partition_id, offset_kind, "offset"),
    CHECK ((event_id IS NULL) = (dedupe_key IS NULL))
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX processed_events_dedupe ON {schema}.processed_events (dedupe_key, subscriber_name)
    WHERE dedupe_key IS NOT NULL;
CREATE INDEX processed_events_age ON {schema}.processed_events (subscriber_name, processed_at);

CREATE TABLE {schema}.consumer_leases (
    consumer     text COLLATE "C" NOT NULL,
    topic        text COLLATE "C" NOT NULL,
    partition_id bigint NOT NULL CHECK (partition_id BETWEEN 0 AND 4294967295),
    owner        text COLLATE "C" NOT NULL,
    epoch        numeric NOT NULL CHECK (epoch BETWEEN 0 AND 18446744073709551615),
    ends_at      timestamptz,
    PRIMARY KEY (consumer, topic, partition_id)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.2);

CREATE TABLE {schema}.consumer_members (
    consumer text COLLATE "C" NOT NULL,
    topic    text COLLATE "C" NOT NULL,
    owner    text COLLATE "C" NOT NULL,
    ends_at  timestamptz NOT NULL,
    PRIMARY KEY (consumer, topic, owner)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.2);

CREATE TABLE {schema}.dead_letters (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer          text COLLATE "C" NOT NULL,
    bus_incarnation   text COLLATE "C" NOT NULL,
    topic             text COLLATE "C" NOT NULL,
    partition_id      bigint NOT NULL CHECK (partition_id BETWEEN 0 AND 4294967295),
    offset_kind       text COLLATE "C" NOT NULL,
    "offset"          numeric NOT NULL CHECK ("offset" >= 0 AND scale("offset") = 0),
    published_at      timestamptz NOT NULL,
    partition_key     text COLLATE "C" NOT NULL,
    event_id          text,
    event_type        text,
    reason            text NOT NULL,
    attempts          bigint NOT NULL,
    failures          text NOT NULL,
    parks_key         boolean NOT NULL,
    envelope          bytea NOT NULL,
    put_at            timestamptz NOT NULL,
    resolution        text,
    resolved_at       timestamptz,
    resolution_reason text,
    CHECK ((resolution IS NULL) = (resolved_at IS NULL) AND (resolution IS NULL) = (resolution_reason IS NULL))
);
CREATE UNIQUE INDEX dead_letters_open ON {schema}.dead_letters
    (consumer, bus_incarnation, topic, partition_id, offset_kind, "offset") WHERE resolved_at IS NULL;
CREATE INDEX dead_letters_parked ON {schema}.dead_letters (consumer, topic)
    WHERE resolved_at IS NULL AND parks_key;
