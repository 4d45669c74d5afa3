//! Which scenario catches which break, of the stores of a consumer.

use eb_conformance::{
    Verdict, dead_letter_scenarios, lease_scenarios, processed_scenarios, run_dead_letter_scenario,
    run_lease_scenario, run_processed_scenario,
};

use crate::bent_leases::{BentLeases, LeaseBend};
use crate::bent_letters::{BentLetters, LettersBend};
use crate::bent_marks::{BentMarks, MarksBend};
use crate::catches::{every_scenario_fails, expect_caught, failed, names};

/// The breaks of a store, each with the scenarios that catch it.
macro_rules! catches {
    ($module:ident, $run:path, $all:path, $stores:path, $bends:ident;
     $($bend:ident by $($scenario:ident),+;)*) => {
        mod $module {
            use super::*;

            #[test]
            fn each_break_is_caught_by_the_scenarios_that_are_for_it() {
                $($({
                    let verdict = $run(stringify!($scenario), &$stores($bends::$bend));
                    expect_caught(stringify!($bend), stringify!($scenario), false, verdict);
                })+)*
            }

            #[test]
            fn every_scenario_fails_on_some_broken_store() {
                every_scenario_fails(&names($all()), |scenario| {
                    [$($bends::$bend),*].into_iter().any(|bend| failed($run(scenario, &$stores(bend))))
                });
            }

            #[test]
            fn nothing_is_caught_where_nothing_is_broken() {
                for scenario in names($all()) {
                    let verdict = $run(scenario, &$stores($bends::Nothing));
                    assert!(matches!(verdict, Verdict::Passed), "{scenario}: {verdict:?}");
                }
            }
        }
    };
}

catches! { leases, run_lease_scenario, lease_scenarios, BentLeases, LeaseBend;
    TwoHolders by of_many_who_race_one_gets_it, one_holds_it_at_any_time,
        random_calls_agree_with_a_plain_model, a_free_partition_is_held_by_whoever_claims_it;
    EpochsStay by a_released_lease_is_free_at_once_under_a_higher_epoch,
        an_ended_lease_goes_to_the_next_under_a_higher_epoch, whoever_comes_back_after_the_end_has_a_higher_epoch;
    CountsFromOne by the_first_epoch_lies_above_any_that_was_counted;
    EndsEarly by a_late_claim_never_brings_the_end_forward, a_heartbeat_renews_what_is_held;
    NeverEnds by an_ended_lease_is_not_renewed, an_ended_lease_goes_to_the_next_under_a_higher_epoch,
        a_worker_that_falls_silent_is_gone;
    ClaimingAgainTakesOver by the_holder_claims_again_and_keeps_its_epoch;
    RenewsNothing by a_heartbeat_renews_what_is_held;
    RenewsAnything by a_heartbeat_answers_each_lease_in_its_place, an_ended_lease_is_not_renewed;
    AnswersReversed by a_heartbeat_answers_each_lease_in_its_place;
    AnyTopicsWorkers by the_living_workers_are_those_of_the_same_consumer_and_topic;
    WorkersStay by a_worker_that_falls_silent_is_gone, whoever_leaves_is_gone_and_its_leases_are_free;
    LeavingKeepsLeases by whoever_leaves_is_gone_and_its_leases_are_free;
    ReleasesAnybodys by releasing_what_is_not_held_changes_nothing;
    ReleasesNothing by a_released_lease_is_free_at_once_under_a_higher_epoch;
    TakesAnyOwner by owners_and_times_to_live_have_limits;
    MixesPartitions by names_that_look_alike_never_mix;
    ListsBackwards by a_list_is_sorted_and_says_what_is_left;
    ForgetsOnReopening by leases_and_epochs_outlive_reopening;
    SecondIsApart by a_second_opening_sees_the_same_leases, of_many_who_race_one_gets_it;
    DropsReports by a_report_is_shown_with_its_lease_until_the_next_one, random_calls_agree_with_a_plain_model;
    ForgetsSilentReports by a_report_is_shown_with_its_lease_until_the_next_one;
    ReportsOutliveTheirLeases by a_report_is_not_shown_once_its_lease_has_ended;
    ReportsOutliveTheirHolders by a_new_holder_is_not_shown_with_the_report_of_the_last;
    AnybodyReports by whoever_does_not_hold_the_lease_reports_nothing;
    ProbingClaims by a_probe_leaves_nothing_behind;
}

catches! { marks, run_processed_scenario, processed_scenarios, BentMarks, MarksBend;
    SeesAll by a_record_that_was_not_marked_is_not_seen, another_life_of_the_bus_has_seen_nothing;
    SeesNothing by a_marked_record_is_seen_and_no_other, a_mark_past_the_checkpoint_is_kept_while_the_cut_moves,
        a_record_without_an_event_is_marked_by_place, marks_alone_are_recorded_or_refused, many_partitions_at_once_never_mix;
    SeesBelowTheHighest by a_marked_record_is_seen_and_no_other, offsets_of_every_kind_are_told_apart,
        random_steps_agree_with_a_plain_model;
    DropsAtTheStepsOwnCut by what_lies_behind_the_stored_cut_is_known_though_the_step_went_further;
    AnyIncarnation by another_life_of_the_bus_has_seen_nothing, events_of_other_subscribers_topics_and_lives_are_no_copies;
    MixesPartitions by scopes_that_look_alike_never_mix;
    AnswersReversed by answers_stand_in_the_place_of_their_questions;
    ForgetsOnReopening by everything_is_there_after_reopening,
        a_copy_is_known_long_after_the_checkpoint_has_passed;
    ForgetsFencesOnReopening by fencing_outlives_reopening;
    SecondIsApart by a_second_opening_sees_what_the_first_has_recorded, a_second_opening_fences_the_first;
    CopiesInOnePartitionAlone by a_copy_in_a_child_of_the_partition_is_known;
    OwnCopies by a_mark_is_never_its_own_copy, a_copy_that_was_marked_itself_is_seen_where_it_is;
    CopiesWithoutBeingAsked by a_copy_further_on_is_known_by_its_event;
    ComparesEventIds by event_ids_alone_are_no_guard;
    IgnoresLeases by a_stale_lease_records_nothing, a_higher_epoch_takes_over, a_lease_has_an_owner,
        a_refused_commit_leaves_no_effect;
    FencesEveryPartition by fencing_is_of_one_partition;
    TakesAnyKind by an_offset_of_another_kind_is_refused;
    TakesAnyOwner by a_lease_has_an_owner;
    ForgetsWithoutLimit by the_oldest_are_forgotten_first, old_marks_before_the_checkpoint_are_forgotten,
        marks_without_a_checkpoint_are_forgotten_by_age;
    ForgetsEverybodys by only_the_subscribers_own_marks_are_forgotten;
    ForgetsWhatIsPending by a_mark_past_the_checkpoint_is_kept_however_old;
    ForgetsFromNothing by marks_behind_a_cut_are_forgotten_on_purpose,
        going_back_behind_the_checkpoint_makes_its_records_new;
    ForgetsFromAnyKind by a_cut_of_another_kind_forgets_nothing;
    CommitsNoCheckpoint by a_step_commits_its_checkpoint;
    MarksBeforeChecking by a_refused_checkpoint_records_no_mark, a_refused_commit_leaves_no_effect;
    UndoesEverything by undoing_takes_back_one_record_alone;
    EffectsAtOnce by effects_marks_and_checkpoint_come_together, a_dropped_transaction_leaves_nothing;
    LastEventStands by a_mark_again_changes_nothing;
    RefusesEmptySteps by a_step_without_marks_is_a_step;
    HalfOfAStep by a_dropped_step_is_recorded_whole_or_not_at_all;
    ProbingForgets by a_probe_leaves_nothing_behind;
    TakesAnyVersion by of_two_transactions_on_one_partition_one_commits;
    LettersAtOnce by letters_come_with_the_commit_and_not_before, a_refused_or_dropped_transaction_leaves_no_letter;
    LettersNever by letters_come_with_the_commit_and_not_before;
    RetriesMarkNothing by a_retried_letter_ends_with_its_effect_and_its_mark;
    RetriesResolveAlone by a_retried_letter_ends_with_its_effect_and_its_mark,
        of_two_retries_of_a_letter_one_has_its_effect;
    RetriesNeedNoOpenLetter by of_two_retries_of_a_letter_one_has_its_effect;
    DroppedRetriesResolve by a_dropped_retry_leaves_the_letter_open;
}

catches! { letters, run_dead_letter_scenario, dead_letter_scenarios, BentLetters, LettersBend;
    StripsSpaces by odd_envelopes_and_keys_come_back_byte_for_byte;
    ForgetsFailures by a_letter_comes_back_whole, odd_texts_and_every_reason_come_back;
    ForgetsTimes by a_letter_comes_back_whole, offsets_of_every_kind_come_back;
    TrimsKeys by odd_envelopes_and_keys_come_back_byte_for_byte;
    MixesConsumers by letters_of_other_consumers_lives_and_places_are_others, open_letters_are_counted,
        filters_let_through_what_they_name;
    MixesIncarnations by letters_of_other_consumers_lives_and_places_are_others;
    ResolvedOnesHide by a_resolved_letter_does_not_hide_a_new_failure;
    NeverTheSame by putting_again_answers_the_letter_that_is_there, many_who_put_at_once_lose_nothing,
        a_dropped_put_is_done_or_not_done;
    AnswersReversed by a_batch_answers_each_letter_in_its_place;
    StopsAtTheFirstRefusal by one_beyond_the_limits_is_refused_and_harms_no_other;
    TakesAnySize by one_beyond_the_limits_is_refused_and_harms_no_other;
    ForgetsOnReopening by names_rise, a_resolved_letter_stays_as_history;
    SecondIsApart by a_second_opening_sees_the_same_letters, of_two_who_resolve_one_succeeds;
    PagesRepeat by pages_follow_each_other_to_the_end;
    IgnoresTheConsumer by filters_let_through_what_they_name;
    IgnoresTheKey by filters_let_through_what_they_name;
    ListsResolved by a_resolved_letter_stays_as_history, random_calls_agree_with_a_plain_model;
    CountsResolved by open_letters_are_counted;
    ParksAllKeys by keys_are_parked_by_open_letters_that_say_so;
    ParksForEver by keys_are_parked_by_open_letters_that_say_so;
    FindsLeftOverOnes by open_letters_are_found_by_their_records;
    FindsInAnyOrder by open_letters_are_found_by_their_records;
    ResolvesTwice by a_letter_is_resolved_once, of_two_who_resolve_one_succeeds;
    NeedsNoReason by a_resolution_needs_a_reason;
    UnknownIsTheFirst by a_letter_that_is_not_there_is_not_found;
    ProbingFails by a_probe_leaves_nothing_behind;
    NumbersFall by names_rise;
}
