//! The list of all bus scenarios: the one place that names them.

use crate::Scenario;
use crate::bus::{
    BusCase, batches, cancellation, closing, digests, follow, limits, order, positions, random_ops,
    reopening, resharding, retention, roundtrip, times, topics,
};
use crate::scenario::Need;

/// Hands the list to another macro, as `(args) theme: name [needs];` lines.
#[doc(hidden)]
#[macro_export]
macro_rules! __bus_scenarios {
    ([$($callback:tt)+], $args:tt) => {
        $($callback)+! { $args
            roundtrip: what_goes_in_comes_back_byte_for_byte [];
            roundtrip: deep_and_large_payloads_come_back_whole [];
            roundtrip: one_byte_over_the_limit_is_refused_and_leaves_no_trace [];
            roundtrip: any_key_comes_back_as_it_was [];
            roundtrip: a_key_longer_than_the_backend_counts_is_refused_alone [];
            roundtrip: the_same_envelope_twice_is_two_records_in_order [];
            roundtrip: an_ack_names_the_record_that_is_read_there [];
            positions: offsets_rise_strictly_as_numbers [];
            positions: resuming_at_any_cut_neither_repeats_nor_skips [];
            positions: a_batch_ends_where_the_next_one_starts [];
            positions: begin_and_earliest_start_at_the_first_record [];
            positions: latest_brings_only_what_comes_later [];
            positions: a_cut_at_the_head_brings_what_comes [];
            positions: a_cut_past_the_head_starts_exactly_there [DenseOffsets];
            positions: a_cut_of_another_kind_is_refused [];
            positions: resuming_with_the_time_of_the_head_starts_at_the_same_cut [];
            positions: a_consumer_that_was_at_the_head_resumes_there [];
            positions: an_empty_partition_is_caught_up [];
            positions: the_head_lies_behind_everything_acked [];
            times: a_time_seeks_to_the_first_record_at_or_after_it [SeekByTime];
            times: a_time_past_the_head_brings_only_what_comes_later [SeekByTime];
            times: published_times_are_sane [];
            batches: a_batch_answers_each_record_in_its_place [];
            batches: an_empty_batch_answers_nothing [];
            batches: a_record_that_fails_stops_its_key_and_no_other [];
            batches: a_batch_over_the_limit_is_refused_whole [];
            batches: the_largest_batch_is_taken [Immediate];
            order: order_is_fixed_when_publish_is_called [StrictOrder];
            order: batches_and_single_records_share_one_order [StrictOrder];
            order: a_later_publish_never_needs_an_earlier_one_to_be_polled [];
            order: many_publishers_and_topics_never_mix [StrictOrder];
            order: two_publisher_handles_never_share_an_offset [SecondPublisher];
            cancellation: a_dropped_publish_hurts_nobody [StrictOrder];
            cancellation: a_dropped_read_keeps_its_place [];
            cancellation: a_dropped_topic_tail_turn_loses_nothing [];
            follow: what_is_acked_can_be_read_at_once [Immediate];
            follow: a_waiting_read_brings_the_next_record [];
            follow: a_wait_at_the_head_ends_empty_handed [];
            follow: following_has_no_gap_where_replay_ends [];
            follow: a_tail_stream_goes_on_where_replay_ends [];
            follow: a_topic_tail_brings_every_partition [];
            closing: a_closed_publisher_refuses [];
            closing: closing_finishes_what_was_called_before [];
            closing: a_closed_reader_refuses_also_through_its_cursors [];
            closing: closing_wakes_a_waiting_read [];
            reopening: reopening_in_the_middle_loses_and_repeats_nothing [Reopen];
            reopening: a_stored_cut_resumes_after_reopening [Reopen];
            reopening: what_a_reader_saw_is_there_after_reopening [Reopen];
            reopening: the_incarnation_outlives_reopening [Reopen];
            topics: a_missing_topic_is_not_found [];
            topics: a_missing_partition_is_not_found [];
            topics: topics_and_partitions_are_listed_in_order [];
            topics: creating_a_topic_again_needs_the_same_number [CreateTopics];
            topics: keys_land_by_the_partition_rule [];
            topics: every_partition_keeps_its_own_keys_in_order [];
            topics: a_probe_says_whether_publishing_could_succeed [];
            limits: a_read_brings_no_more_records_than_asked_for [];
            limits: a_read_brings_about_the_bytes_asked_for_and_at_least_one_record [];
            digests: digests_equal_those_of_a_plain_model [];
            random_ops: random_operations_agree_with_a_plain_model [];
            retention: below_the_horizon_is_out_of_range_naming_the_oldest_left [Retention];
            retention: a_cursor_overtaken_by_the_horizon_says_so [Retention];
            retention: positions_are_not_given_again_after_everything_was_trimmed [Retention];
            resharding: a_split_partition_ends_and_names_its_children [Resharding];
            resharding: a_topic_tail_reads_parents_before_children [Resharding];
            resharding: a_topic_tail_from_a_time_gives_nothing_older_behind_a_split [Resharding];
            resharding: publishing_goes_on_through_split_and_merge [Resharding];
        }
    };
}

macro_rules! table {
    (() $($theme:ident: $name:ident [$($need:ident),*];)*) => {
        &[$(Scenario {
            theme: stringify!($theme),
            name: stringify!($name),
            needs: &[$(Need::$need),*],
            run: |case| Box::pin($theme::$name(case)),
        }),*]
    };
}

/// All scenarios of the bus suite.
#[must_use]
pub fn bus_scenarios() -> &'static [Scenario<BusCase>] {
    const ALL: &[Scenario<BusCase>] = __bus_scenarios!([table], ());
    ALL
}
