//! The statements of the checkpoint store, for one schema.
//!
//! Cuts compare by rank (begin 0, at an offset 1, end 2) and, at offsets, by `2 · offset + (1 if after)` within a kind:
//! see [`position`](crate::position).

pub(super) struct Sql {
    pub(super) load: String,
    pub(super) list: String,
    pub(super) update: String,
    pub(super) insert: String,
    pub(super) lock: String,
    pub(super) write: String,
    pub(super) log_reset: String,
    pub(super) history: String,
    pub(super) probe: String,
}

/// The columns of a checkpoint, in the order that rows are read.
const COLUMNS: &str = "c.consumer, c.topic, c.partition_id, c.cut_type, c.offset_kind, c.offset_value::text, \
    c.caught_up_at, c.version, c.bus_incarnation, c.lease_owner, c.lease_epoch::text, c.committed_at";

impl Sql {
    pub(super) fn of(schema: &str) -> Self {
        let table = format!("{schema}.checkpoints");
        Self {
            load: format!(
                "SELECT {COLUMNS} FROM {table} c WHERE consumer = $1 AND topic = $2 AND partition_id = $3"
            ),
            list: format!(
                "SELECT {COLUMNS} FROM {table} c WHERE $1::text IS NULL OR consumer = $1 \
                 ORDER BY consumer, topic, partition_id"
            ),
            // Every rule of a commit, in one statement that is its own transaction. Where it changes nothing, the
            // rows are looked at in turn to say why.
            update: format!(
                "UPDATE {table} c SET cut_type = $4, offset_kind = $5, offset_value = $6::text::numeric, \
                     caught_up_at = greatest(caught_up_at, $7), version = version + 1, lease_owner = $8, \
                     lease_epoch = $9::text::numeric, committed_at = clock_timestamp() \
                 WHERE consumer = $1 AND topic = $2 AND partition_id = $3 \
                   AND version = $10 AND bus_incarnation = $11 \
                   AND (lease_epoch IS NULL OR lease_epoch < $9::text::numeric \
                        OR (lease_epoch = $9::text::numeric AND lease_owner = $8)) \
                   AND CASE WHEN cut_type IN ('next', 'after') AND $4 IN ('next', 'after') \
                       THEN offset_kind = $5 AND 2 * $6::text::numeric + ($4 = 'after')::int \
                            >= 2 * offset_value + (cut_type = 'after')::int \
                       ELSE cut_type = 'begin' OR $4 = 'end' END \
                 RETURNING {COLUMNS}"
            ),
            insert: format!(
                "INSERT INTO {table} AS c (consumer, topic, partition_id, cut_type, offset_kind, offset_value, \
                     caught_up_at, version, bus_incarnation, lease_owner, lease_epoch, committed_at) \
                 VALUES ($1, $2, $3, $4, $5, $6::text::numeric, $7, 1, $10, $8, $9::text::numeric, \
                     clock_timestamp()) \
                 ON CONFLICT DO NOTHING RETURNING {COLUMNS}"
            ),
            // Sorted, so that two commits of the same checkpoints wait for each other instead of forming a ring.
            lock: format!(
                "SELECT {COLUMNS} FROM {table} c \
                 JOIN unnest($1::text[], $2::text[], $3::int8[]) AS i(consumer, topic, partition_id) \
                     USING (consumer, topic, partition_id) \
                 ORDER BY c.consumer, c.topic, c.partition_id FOR UPDATE OF c"
            ),
            write: format!(
                "INSERT INTO {table} AS c (consumer, topic, partition_id, cut_type, offset_kind, offset_value, \
                     caught_up_at, version, bus_incarnation, lease_owner, lease_epoch, committed_at) \
                 SELECT i.consumer, i.topic, i.partition_id, i.cut_type, i.offset_kind, \
                     i.offset_value::numeric, i.caught_up_at, i.version, i.bus_incarnation, i.lease_owner, \
                     i.lease_epoch::numeric, clock_timestamp() \
                 FROM unnest($1::text[], $2::text[], $3::int8[], $4::text[], $5::text[], $6::text[], \
                     $7::timestamptz[], $8::int8[], $9::text[], $10::text[], $11::text[]) \
                     AS i(consumer, topic, partition_id, cut_type, offset_kind, offset_value, caught_up_at, \
                          version, bus_incarnation, lease_owner, lease_epoch) \
                 ORDER BY i.consumer COLLATE \"C\", i.topic COLLATE \"C\", i.partition_id \
                 ON CONFLICT (consumer, topic, partition_id) DO UPDATE SET \
                     cut_type = excluded.cut_type, offset_kind = excluded.offset_kind, \
                     offset_value = excluded.offset_value, caught_up_at = excluded.caught_up_at, \
                     version = excluded.version, bus_incarnation = excluded.bus_incarnation, \
                     lease_owner = excluded.lease_owner, lease_epoch = excluded.lease_epoch, \
                     committed_at = excluded.committed_at \
                 WHERE c.version = excluded.version - 1 \
                 RETURNING {COLUMNS}"
            ),
            log_reset: format!(
                "INSERT INTO {schema}.checkpoint_resets (consumer, topic, partition_id, from_version, \
                     from_cut_type, from_offset_kind, from_offset_value, from_incarnation, to_cut_type, \
                     to_offset_kind, to_offset_value, to_incarnation, reason, reset_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7::text::numeric, $8, $9, $10, $11::text::numeric, $12, $13, \
                     clock_timestamp())"
            ),
            history: format!(
                "SELECT from_cut_type, from_offset_kind, from_offset_value::text, to_cut_type, to_offset_kind, \
                     to_offset_value::text, reason, reset_at \
                 FROM {schema}.checkpoint_resets \
                 WHERE consumer = $1 AND topic = $2 AND partition_id = $3 ORDER BY id"
            ),
            probe: format!(
                "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool, \
                     has_table_privilege('{table}', 'SELECT') AND has_table_privilege('{table}', 'INSERT') \
                     AND has_table_privilege('{table}', 'UPDATE')"
            ),
        }
    }
}
