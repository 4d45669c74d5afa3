//! Which scenario catches which break.

use std::time::Duration;

use eb_conformance::{
    Pace, Scenario, Verdict, admission_plan, admission_scenarios, bus_scenarios, checkpoint_scenarios,
    run_admission_scenario, run_bus_scenario, run_checkpoint_scenario,
};
use eb_memory::MemoryConfig;

use crate::bent_bus::{Bend, BentFactory};
use crate::bent_index::{BentIndexes, IndexBend};
use crate::bent_store::{BentStores, StoreBend};

/// Impatient about records that do not come, patient with a slow machine.
const PACE: Pace = Pace { visible_within: Duration::from_millis(300), ..Pace::LOCAL };

fn config(stream: bool) -> MemoryConfig {
    let config = if stream { MemoryConfig::stream_like() } else { MemoryConfig::default() };
    MemoryConfig { max_batch_records: 2_000, max_envelope_bytes: 300_000, ..config }
}

pub(crate) fn expect_caught(what: &str, scenario: &str, by_hanging: bool, verdict: Verdict) {
    match verdict {
        Verdict::Failed(failure) => {
            let hung = failure.to_string().contains("it hangs");
            assert_eq!(hung, by_hanging, "{what} was caught by {scenario} in another way: {failure}");
        }
        other => panic!("{what} was not caught by {scenario}: {other:?}"),
    }
}

fn bus_with(bend: Bend, stream: bool, hangs: bool) -> BentFactory {
    let pace = if hangs { Pace { deadline: Duration::from_secs(2), ..PACE } } else { PACE };
    BentFactory { bend, config: config(stream), partitions: 3, pace }
}

/// Whether the scenario found something, rather than ran out of time.
pub(crate) fn failed(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Failed(failure) if !failure.to_string().contains("it hangs"))
}

pub(crate) fn names<C>(scenarios: &[Scenario<C>]) -> Vec<&'static str> {
    scenarios.iter().map(|s| s.name).collect()
}

/// A scenario that passes on everything proves nothing.
pub(crate) fn every_scenario_fails(scenarios: &[&'static str], fails_somewhere: impl Fn(&str) -> bool) {
    let never: Vec<_> = scenarios.iter().filter(|s| !fails_somewhere(s)).collect();
    assert!(never.is_empty(), "pass on everything that is broken: {never:?}");
}

macro_rules! bus_catches {
    ($($name:ident: $bend:ident $shape:ident by $($scenario:ident),+;)*) => {
        $(
            #[test]
            fn $name() {
                $(
                    let hangs = stringify!($shape) == "hanging";
                    let factory = bus_with(Bend::$bend, stringify!($shape) == "stream", hangs);
                    let verdict = run_bus_scenario(stringify!($scenario), &factory);
                    expect_caught(stringify!($bend), stringify!($scenario), hangs, verdict);
                )+
            }
        )*

        #[test]
        fn every_bus_scenario_fails_on_some_broken_bus() {
            let broken = [$((Bend::$bend, stringify!($shape))),*];
            every_scenario_fails(&names(bus_scenarios()), |scenario| {
                let mut quick = broken.iter().filter(|(_, shape)| *shape != "hanging");
                quick.any(|(bend, shape)| failed(run_bus_scenario(scenario, &bus_with(*bend, *shape == "stream", true))))
            });
        }
    };
}

mod the_wrapper_itself {
    eb_conformance::bus_suite!(super::BentFactory {
        pace: super::Pace::LOCAL,
        ..super::bus_with(super::Bend::Nothing, false, false)
    });
}

mod the_wrapper_of_a_stream {
    eb_conformance::bus_suite!(super::BentFactory {
        pace: super::Pace::LOCAL,
        ..super::bus_with(super::Bend::Nothing, true, false)
    });
}

bus_catches! {
    order_at_first_poll: OrderAtFirstPoll log by order_is_fixed_when_publish_is_called;
    later_waits_for_earlier_poll: LaterWaitsForEarlierPoll hanging
        by a_later_publish_never_needs_an_earlier_one_to_be_polled;
    shared_offsets: SharedOffsets log by offsets_rise_strictly_as_numbers, an_ack_names_the_record_that_is_read_there;
    ack_without_append: AckWithoutAppend log by offsets_rise_strictly_as_numbers, many_publishers_and_topics_never_mix;
    dedupes: Dedupes log by the_same_envelope_twice_is_two_records_in_order;
    strips_spaces: StripsSpaces log by what_goes_in_comes_back_byte_for_byte, digests_equal_those_of_a_plain_model;
    trims_keys: TrimsKeys log by any_key_comes_back_as_it_was, digests_equal_those_of_a_plain_model;
    takes_one_byte_more: TakesOneByteMore log by one_byte_over_the_limit_is_refused_and_leaves_no_trace;
    takes_one_byte_less: TakesOneByteLess log by deep_and_large_payloads_come_back_whole;
    refusal_of_unknown_effect: RefusalOfUnknownEffect log
        by one_byte_over_the_limit_is_refused_and_leaves_no_trace;
    batch_goes_on_after_failure: BatchGoesOnAfterFailure log by a_record_that_fails_stops_its_key_and_no_other;
    batch_stops_all_keys: BatchStopsAllKeys log by a_record_that_fails_stops_its_key_and_no_other;
    batch_answers_reversed: BatchAnswersReversed log by a_batch_answers_each_record_in_its_place;
    batch_answers_missing: BatchAnswersMissing log by a_batch_answers_each_record_in_its_place;
    batch_loses_its_last: BatchLosesItsLast log by a_batch_answers_each_record_in_its_place;
    batch_appends_backwards: BatchAppendsBackwards log
        by batches_and_single_records_share_one_order, every_partition_keeps_its_own_keys_in_order,
           digests_equal_those_of_a_plain_model, random_operations_agree_with_a_plain_model;
    batch_takes_any_number: BatchTakesAnyNumber log by a_batch_over_the_limit_is_refused_whole;
    strays_to_another_topic: StraysToAnotherTopic log by many_publishers_and_topics_never_mix;
    another_partition_rule: AnotherPartitionRule log by keys_land_by_the_partition_rule;
    dropped_calls_are_sent_again: DroppedCallsAreSentAgain log by a_dropped_publish_hurts_nobody;
    publishes_after_close: PublishesAfterClose log by a_closed_publisher_refuses;
    close_abandons_calls: CloseAbandonsCalls log by closing_finishes_what_was_called_before;
    probe_publishes: ProbePublishes log by a_probe_says_whether_publishing_could_succeed;
    makes_missing_topics: MakesMissingTopics log by a_missing_topic_is_not_found;
    ack_time_is_not_the_records: AckTimeIsNotTheRecords log by published_times_are_sane;
    resume_skips_one: ResumeSkipsOne log
        by resuming_at_any_cut_neither_repeats_nor_skips, a_stored_cut_resumes_after_reopening,
           a_batch_ends_where_the_next_one_starts, a_cut_past_the_head_starts_exactly_there;
    resume_repeats_one: ResumeRepeatsOne log
        by resuming_at_any_cut_neither_repeats_nor_skips, a_stored_cut_resumes_after_reopening,
           a_batch_ends_where_the_next_one_starts, a_cut_at_the_head_brings_what_comes;
    after_redelivers: AfterRedelivers log by resuming_at_any_cut_neither_repeats_nor_skips;
    after_redelivers_on_a_stream: AfterRedelivers stream
        by resuming_at_any_cut_neither_repeats_nor_skips, a_stored_cut_resumes_after_reopening;
    compares_offsets_as_text: ComparesOffsetsAsText log by resuming_at_any_cut_neither_repeats_nor_skips;
    compares_offsets_as_text_on_a_stream: ComparesOffsetsAsText stream
        by resuming_at_any_cut_neither_repeats_nor_skips;
    latest_is_earliest: LatestIsEarliest log by latest_brings_only_what_comes_later;
    earliest_is_latest: EarliestIsLatest log by begin_and_earliest_start_at_the_first_record;
    time_is_ignored: TimeIsIgnored log
        by a_time_seeks_to_the_first_record_at_or_after_it, a_time_past_the_head_brings_only_what_comes_later;
    time_is_exclusive: TimeIsExclusive log by a_time_seeks_to_the_first_record_at_or_after_it;
    any_kind_of_cut: AnyKindOfCut log by a_cut_of_another_kind_is_refused;
    missing_partition_is_first: MissingPartitionIsFirst log by a_missing_partition_is_not_found;
    missing_topic_is_empty: MissingTopicIsEmpty log by a_missing_topic_is_not_found;
    head_lags: HeadLags log by the_head_lies_behind_everything_acked;
    topics_unsorted: TopicsUnsorted log by topics_and_partitions_are_listed_in_order;
    parents_hidden: ParentsHidden stream by a_split_partition_ends_and_names_its_children;
    reads_after_close: ReadsAfterClose log by a_closed_reader_refuses_also_through_its_cursors;
    close_leaves_reads_waiting: CloseLeavesReadsWaiting hanging by closing_wakes_a_waiting_read;
    jumps_silently: JumpsSilently stream
        by below_the_horizon_is_out_of_range_naming_the_oldest_left, a_cursor_overtaken_by_the_horizon_says_so;
    oldest_unnamed: OldestUnnamed stream by below_the_horizon_is_out_of_range_naming_the_oldest_left;
    delivers_twice: DeliversTwice log
        by following_has_no_gap_where_replay_ends, a_read_brings_no_more_records_than_asked_for;
    gap_at_the_head: GapAtTheHead log by following_has_no_gap_where_replay_ends;
    dropped_reads_lose_records: DroppedReadsLoseRecords log by a_dropped_read_keeps_its_place;
    any_number_of_records: AnyNumberOfRecords log by a_read_brings_no_more_records_than_asked_for;
    any_number_of_bytes: AnyNumberOfBytes log
        by a_read_brings_about_the_bytes_asked_for_and_at_least_one_record;
    never_waits: NeverWaits log by a_waiting_read_brings_the_next_record;
    waits_for_good: WaitsForGood hanging by a_wait_at_the_head_ends_empty_handed;
    caught_up_too_early: CaughtUpTooEarly log by a_batch_ends_where_the_next_one_starts;
    next_cut_too_far: NextCutTooFar log by a_batch_ends_where_the_next_one_starts;
    batches_backwards: BatchesBackwards log by what_goes_in_comes_back_byte_for_byte;
    children_unnamed: ChildrenUnnamed stream by a_split_partition_ends_and_names_its_children;
    reopening_loses_the_last: ReopeningLosesTheLast log by reopening_in_the_middle_loses_and_repeats_nothing;
    reads_before_durable: ReadsBeforeDurable log by what_a_reader_saw_is_there_after_reopening;
    reopening_is_another_life: ReopeningIsAnotherLife log by the_incarnation_outlives_reopening;
    any_number_of_partitions_again: AnyNumberOfPartitionsAgain log
        by creating_a_topic_again_needs_the_same_number;
    creating_twice_fails: CreatingTwiceFails log by creating_a_topic_again_needs_the_same_number;
}

macro_rules! store_catches {
    ($($name:ident: $bend:ident by $($scenario:ident),+;)*) => {
        mod stores {
            use super::*;
            $(
                #[test]
                fn $name() {
                    $(
                        let verdict = run_checkpoint_scenario(stringify!($scenario), &BentStores(StoreBend::$bend));
                        expect_caught(stringify!($bend), stringify!($scenario), false, verdict);
                    )+
                }
            )*

            #[test]
            fn every_scenario_fails_on_some_broken_store() {
                every_scenario_fails(&names(checkpoint_scenarios()), |scenario| {
                    let broken = [$(StoreBend::$bend),*];
                    broken.into_iter().any(|bend| failed(run_checkpoint_scenario(scenario, &BentStores(bend))))
                });
            }
        }
    };
}

mod the_store_wrapper_itself {
    eb_conformance::checkpoint_store_suite!(super::BentStores(super::StoreBend::Nothing));
}

store_catches! {
    ignores_versions: IgnoresVersions
        by a_stale_version_conflicts_and_names_the_current_one, of_concurrent_commits_exactly_one_wins_each_version,
           a_reset_goes_back_and_the_running_consumer_conflicts, random_commits_agree_with_a_plain_model;
    goes_back: GoesBack by a_cut_that_goes_back_is_refused, random_commits_agree_with_a_plain_model;
    compares_cuts_as_text: ComparesCutsAsText by cuts_advance_as_numbers, a_cut_that_goes_back_is_refused;
    ignores_epochs: IgnoresEpochs by a_lower_epoch_is_fenced, a_higher_epoch_takes_over;
    any_owner_of_an_epoch: AnyOwnerOfAnEpoch by another_owner_of_the_same_epoch_is_fenced;
    same_cut_keeps_the_version: SameCutKeepsTheVersion by the_same_cut_again_raises_the_version;
    caught_up_at_goes_back: CaughtUpAtGoesBack by caught_up_at_never_goes_back;
    forgets_on_reopening: ForgetsOnReopening by everything_is_there_after_reopening, a_reset_outlives_reopening;
    forgets_the_fence_on_reopening: ForgetsTheFenceOnReopening by fencing_outlives_reopening;
    resets_without_a_reason: ResetsWithoutAReason by a_reset_needs_a_reason;
    reset_keeps_caught_up_at: ResetKeepsCaughtUpAt by a_reset_forgets_when_the_consumer_was_caught_up;
    lists_everybody: ListsEverybody by a_list_of_one_consumer_holds_its_own_alone;
    lists_partitions_as_text: ListsPartitionsAsText by a_list_is_sorted_and_complete;
    mixes_partitions: MixesPartitions by names_that_look_alike_never_mix, many_partitions_commit_at_once;
    joins_names: JoinsNames by names_that_look_alike_never_mix;
    ignores_incarnations: IgnoresIncarnations by another_incarnation_is_refused;
    answers_reversed: AnswersReversed by many_partitions_commit_at_once;
    commits_half_of_a_batch: CommitsHalfOfABatch by one_refused_checkpoint_never_harms_the_others;
    unknown_is_at_the_beginning: UnknownIsAtTheBeginning by an_unknown_checkpoint_is_none;
    any_first_version: AnyFirstVersion by the_first_commit_expects_version_zero;
    history_without_reasons: HistoryWithoutReasons by resets_leave_their_history;
}

macro_rules! index_catches {
    ($($name:ident: $bend:ident by $($scenario:ident),+;)*) => {
        mod indexes {
            use super::*;
            $(
                #[test]
                fn $name() {
                    $(
                        let verdict = run_admission_scenario(stringify!($scenario), &BentIndexes(IndexBend::$bend));
                        expect_caught(stringify!($bend), stringify!($scenario), false, verdict);
                    )+
                }
            )*

            #[test]
            fn every_scenario_fails_on_some_broken_index() {
                let mut scenarios = names(admission_scenarios());
                // The broken indexes are of one gate.
                scenarios.retain(|s| !admission_plan(&BentIndexes(IndexBend::Nothing)).not_run().contains(s));
                every_scenario_fails(&scenarios, |scenario| {
                    let broken = [$(IndexBend::$bend),*];
                    broken.into_iter().any(|bend| failed(run_admission_scenario(scenario, &BentIndexes(bend))))
                });
            }
        }
    };
}

mod the_index_wrapper_itself {
    eb_conformance::admission_index_suite!(super::BentIndexes(super::IndexBend::Nothing));
}

index_catches! {
    last_copy_wins: LastCopyWins
        by an_entry_never_moves_and_callers_are_told_what_stands, random_calls_agree_with_a_plain_model;
    compares_offsets_as_text: ComparesOffsetsAsText by an_entry_never_moves_and_callers_are_told_what_stands;
    lowest_offset_of_any_partition: LowestOffsetOfAnyPartition
        by an_entry_never_moves_and_callers_are_told_what_stands;
    lowest_offset_of_a_partition: LowestOffsetOfAPartition
        by an_entry_never_moves_and_callers_are_told_what_stands;
    tells_nobody_what_stands: TellsNobodyWhatStands
        by an_entry_never_moves_and_callers_are_told_what_stands;
    forgets_publish_times: ForgetsPublishTimes by a_confirmed_key_is_admitted_where_it_lies;
    look_ups_reserve: LookUpsReserve by a_look_up_reserves_nothing;
    released_keys_stay_taken: ReleasedKeysStayTaken by a_released_key_is_fresh_again;
    answers_reversed: AnswersReversed by answers_stand_in_the_place_of_their_requests;
    finds_the_first_of_an_event: FindsTheFirstOfAnEvent by an_event_is_found_by_its_id_alone;
    scan_repeats_the_last: ScanRepeatsTheLast by a_scan_pages_in_key_order_to_the_end;
    scan_skips_one: ScanSkipsOne by a_scan_pages_in_key_order_to_the_end;
    checkpoint_ahead_of_entries: CheckpointAheadOfEntries by a_checkpoint_is_never_there_without_its_entries;
    forgets_on_reopening: ForgetsOnReopening by everything_is_there_after_a_clean_close;
    policies_repeat: PoliciesRepeat by policies_are_remembered_in_order;
    policies_once_each: PoliciesOnceEach by policies_are_remembered_in_order;
    policies_lost_in_a_crash: PoliciesLostInACrash by a_policy_outlives_a_crash;
    answers_after_close: AnswersAfterClose by a_closed_index_refuses;
    confirmed_only_at_checkpoint: ConfirmedOnlyAtCheckpoint by a_confirmed_key_is_admitted_where_it_lies;
    own_reservations_stay_open: OwnReservationsStayOpen by one_gate_has_no_open_reservations;
    counts_nothing: CountsNothing by the_length_counts_admitted_events;
    first_checkpoint_stays: FirstCheckpointStays by a_checkpoint_comes_back_as_stored;
    keys_share_their_first_bytes: KeysShareTheirFirstBytes by an_event_is_found_by_its_id_alone;
}
