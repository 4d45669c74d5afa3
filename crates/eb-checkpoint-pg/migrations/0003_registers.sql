-- Small values that several processes agree on, and what was changed when and why.
CREATE TABLE {schema}.registers (
    name text PRIMARY KEY,
    version bigint NOT NULL CHECK (version > 0),
    value bytea NOT NULL
);

CREATE TABLE {schema}.register_changes (
    name text NOT NULL,
    version bigint NOT NULL,
    reason text NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (name, version)
);
