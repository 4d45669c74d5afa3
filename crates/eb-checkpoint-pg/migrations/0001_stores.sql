-- Consumer checkpoints and the admission index of several gates. SCHEMA.md explains the columns.

CREATE TABLE {schema}.checkpoints (
    consumer        text COLLATE "C" NOT NULL,
    topic           text COLLATE "C" NOT NULL,
    partition_id    bigint NOT NULL CHECK (partition_id BETWEEN 0 AND 4294967295),
    cut_type        text NOT NULL CHECK (cut_type IN ('begin', 'next', 'after', 'end')),
    offset_kind     text,
    offset_value    numeric CHECK (offset_value >= 0 AND scale(offset_value) = 0),
    caught_up_at    timestamptz,
    version         bigint NOT NULL CHECK (version > 0),
    bus_incarnation text COLLATE "C" NOT NULL,
    lease_owner     text COLLATE "C",
    lease_epoch     numeric CHECK (lease_epoch BETWEEN 0 AND 18446744073709551615),
    committed_at    timestamptz NOT NULL,
    PRIMARY KEY (consumer, topic, partition_id),
    CHECK ((cut_type IN ('next', 'after')) = (offset_value IS NOT NULL)),
    CHECK ((offset_kind IS NULL) = (offset_value IS NULL)),
    CHECK ((lease_owner IS NULL) = (lease_epoch IS NULL))
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.2);

CREATE TABLE {schema}.checkpoint_resets (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer           text COLLATE "C" NOT NULL,
    topic              text COLLATE "C" NOT NULL,
    partition_id       bigint NOT NULL,
    from_version       bigint,
    from_cut_type      text,
    from_offset_kind   text,
    from_offset_value  numeric,
    from_incarnation   text COLLATE "C",
    to_cut_type        text NOT NULL,
    to_offset_kind     text,
    to_offset_value    numeric,
    to_incarnation     text COLLATE "C" NOT NULL,
    reason             text NOT NULL,
    reset_at           timestamptz NOT NULL
);
CREATE INDEX ON {schema}.checkpoint_resets (consumer, topic, partition_id, id);

CREATE TABLE {schema}.admitted (
    key          bytea NOT NULL PRIMARY KEY CHECK (octet_length(key) = 40),
    payload_hash bytea NOT NULL CHECK (octet_length(payload_hash) = 32),
    topic        text COLLATE "C" NOT NULL,
    partition_id bigint NOT NULL CHECK (partition_id BETWEEN 0 AND 4294967295),
    offset_kind  text NOT NULL,
    offset_value numeric NOT NULL CHECK (offset_value >= 0 AND scale(offset_value) = 0),
    published_at timestamptz NOT NULL
);

CREATE TABLE {schema}.gates (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name      text NOT NULL,
    opened_at timestamptz NOT NULL
);

CREATE TABLE {schema}.reservations (
    key          bytea NOT NULL PRIMARY KEY CHECK (octet_length(key) = 40),
    id           bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    payload_hash bytea NOT NULL CHECK (octet_length(payload_hash) = 32),
    topic        text COLLATE "C" NOT NULL,
    start        text NOT NULL,
    policy       text NOT NULL,
    gate_id      bigint NOT NULL,
    reserved_at  timestamptz NOT NULL,
    lease_until  timestamptz NOT NULL
) WITH (autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_scale_factor = 0);

CREATE TABLE {schema}.index_checkpoint (
    single       boolean PRIMARY KEY DEFAULT true CHECK (single),
    checkpoint   text NOT NULL,
    committed_at timestamptz NOT NULL
);

CREATE TABLE {schema}.policies (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    policy_id      text NOT NULL,
    revision       text NOT NULL,
    content_digest text NOT NULL,
    since          timestamptz NOT NULL,
    cuts           text NOT NULL
);
