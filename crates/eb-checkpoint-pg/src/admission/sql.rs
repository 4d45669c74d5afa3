//! The statements of the admission index, for one schema.

pub(super) struct Sql {
    pub(super) register: String,
    pub(super) reserve: String,
    pub(super) look: String,
    pub(super) give_again: String,
    pub(super) renew: String,
    pub(super) release: String,
    pub(super) give_up: String,
    pub(super) store: String,
    pub(super) get: String,
    pub(super) get_all: String,
    pub(super) find: String,
    pub(super) scan: String,
    pub(super) open: String,
    pub(super) checkpoint: String,
    pub(super) commit_checkpoint: String,
    pub(super) lock_policies: String,
    pub(super) record_policy: String,
    pub(super) policies: String,
    pub(super) estimate: String,
    pub(super) count: String,
    pub(super) probe: String,
}

/// Every statement here looks rows up by index; plans made while the tables were empty must stay right when they hold
/// millions.
pub(super) const SESSION: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
     SET plan_cache_mode = force_generic_plan";

/// The columns of an entry, in the order that rows are read.
const ENTRY: &str =
    "a.key, a.payload_hash, a.topic, a.partition_id, a.offset_kind, a.offset_value::text, a.published_at";

impl Sql {
    pub(super) fn of(schema: &str) -> Self {
        let (admitted, reservations) = (format!("{schema}.admitted"), format!("{schema}.reservations"));
        let (gates, policies) = (format!("{schema}.gates"), format!("{schema}.policies"));
        Self {
            register: format!(
                "INSERT INTO {gates} (name, opened_at) VALUES ($1, clock_timestamp()) RETURNING id"
            ),
            // In key order, so that two gates that reserve the same keys never wait for each other in a ring.
            reserve: format!(
                "INSERT INTO {reservations} \
                     (key, payload_hash, topic, start, policy, gate_id, reserved_at, lease_until) \
                 SELECT i.key, i.payload_hash, i.topic, ($5::text[])[i.shape], ($6::text[])[i.shape], $7, \
                     clock_timestamp(), clock_timestamp() + $8::int8 * interval '1 microsecond' \
                 FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::int4[]) \
                     AS i(key, payload_hash, topic, shape) \
                 WHERE NOT EXISTS (SELECT FROM {admitted} a WHERE a.key = i.key) \
                 ORDER BY i.key \
                 ON CONFLICT (key) DO NOTHING RETURNING id"
            ),
            look: format!(
                "SELECT {ENTRY}, r.id, r.gate_id, \
                     (extract(epoch FROM r.lease_until - clock_timestamp()) * 1000000)::int8, \
                     CASE WHEN r.gate_id <> $2 THEN (SELECT name FROM {gates} g WHERE g.id = r.gate_id) END \
                 FROM unnest($1::bytea[]) WITH ORDINALITY AS i(key, n) \
                     LEFT JOIN {admitted} a ON a.key = i.key LEFT JOIN {reservations} r ON r.key = i.key \
                 ORDER BY i.n"
            ),
            give_again: format!(
                "UPDATE {reservations} r SET payload_hash = i.payload_hash, topic = i.topic, start = i.start, \
                     policy = i.policy, reserved_at = clock_timestamp(), renewed_at = NULL, \
                     lease_until = clock_timestamp() + $7::int8 * interval '1 microsecond' \
                 FROM unnest($1::int8[], $2::bytea[], $3::text[], $4::text[], $5::text[]) \
                     AS i(id, payload_hash, topic, start, policy) \
                 WHERE r.id = i.id AND r.gate_id = $6 RETURNING r.id"
            ),
            // What somebody settles at this moment need not be waited for: it is not open much longer.
            renew: format!(
                "WITH open AS (SELECT id FROM {reservations} \
                     WHERE id = ANY($1::int8[]) AND gate_id = $2 FOR UPDATE SKIP LOCKED) \
                 UPDATE {reservations} r SET renewed_at = clock_timestamp(), \
                     lease_until = clock_timestamp() + $3::int8 * interval '1 microsecond' \
                 FROM open WHERE r.id = open.id"
            ),
            release: format!("DELETE FROM {reservations} WHERE id = ANY($1::int8[]) AND gate_id = $2"),
            give_up: format!(
                "DELETE FROM {reservations} WHERE id = ANY($1::int8[]) AND lease_until <= clock_timestamp()"
            ),
            store: format!(
                "WITH stored AS ( \
                     INSERT INTO {admitted} \
                         (key, payload_hash, topic, partition_id, offset_kind, offset_value, published_at) \
                     SELECT i.key, i.payload_hash, i.topic, i.partition_id, i.offset_kind, \
                         i.offset_value::numeric, i.published_at \
                     FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::int8[], $5::text[], $6::text[], \
                         $7::timestamptz[]) \
                         AS i(key, payload_hash, topic, partition_id, offset_kind, offset_value, published_at) \
                     ORDER BY i.key \
                     ON CONFLICT (key) DO NOTHING RETURNING 1), \
                 settled AS (DELETE FROM {reservations} WHERE key = ANY($1::bytea[])) \
                 SELECT count(*) FROM stored"
            ),
            get: format!("SELECT {ENTRY} FROM {admitted} a WHERE key = $1"),
            get_all: format!("SELECT {ENTRY} FROM {admitted} a WHERE key = ANY($1::bytea[])"),
            find: format!("SELECT {ENTRY} FROM {admitted} a WHERE key BETWEEN $1 AND $2 ORDER BY key"),
            scan: format!("SELECT {ENTRY} FROM {admitted} a WHERE key > $1 ORDER BY key LIMIT $2"),
            open: format!(
                "SELECT r.id, r.key, r.payload_hash, r.topic, r.start, r.policy, r.gate_id, g.name, \
                     greatest(0, extract(epoch FROM clock_timestamp() - r.reserved_at) * 1000000)::int8, \
                     coalesce(extract(epoch FROM r.renewed_at - r.reserved_at) * 1000000, 0)::int8 \
                 FROM {reservations} r LEFT JOIN {gates} g ON g.id = r.gate_id ORDER BY r.id"
            ),
            checkpoint: format!("SELECT checkpoint FROM {schema}.index_checkpoint"),
            commit_checkpoint: format!(
                "INSERT INTO {schema}.index_checkpoint AS c (checkpoint, committed_at) \
                 VALUES ($1, clock_timestamp()) ON CONFLICT (single) \
                 DO UPDATE SET checkpoint = excluded.checkpoint, committed_at = excluded.committed_at"
            ),
            lock_policies: format!("LOCK TABLE {policies} IN SHARE ROW EXCLUSIVE MODE"),
            record_policy: format!(
                "INSERT INTO {policies} (policy_id, revision, content_digest, since, cuts) \
                 SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS ( \
                     SELECT FROM (SELECT * FROM {policies} ORDER BY id DESC LIMIT 1) newest \
                     WHERE newest.policy_id = $1 AND newest.revision = $2 AND newest.content_digest = $3)"
            ),
            policies: format!(
                "SELECT policy_id, revision, content_digest, since, cuts FROM {policies} ORDER BY id"
            ),
            estimate: format!("SELECT reltuples::int8 FROM pg_class WHERE oid = '{admitted}'::regclass"),
            count: format!("SELECT count(*) FROM (SELECT FROM {admitted} LIMIT $1) few"),
            probe: format!(
                "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool, \
                     has_table_privilege('{admitted}', 'INSERT') AND has_table_privilege('{admitted}', 'UPDATE') \
                     AND has_table_privilege('{reservations}', 'INSERT') \
                     AND has_table_privilege('{reservations}', 'DELETE')"
            ),
        }
    }
}
