//! The list of all scenarios of marks.

use crate::Scenario;
use crate::processed::{ProcessedCase, events, fencing, forgetting, marks, model, transactions};
use crate::scenario::Need;

/// Hands the list to another macro, as `(args) theme: name [needs];` lines.
#[doc(hidden)]
#[macro_export]
macro_rules! __processed_scenarios {
    ([$($callback:tt)+], $args:tt) => {
        $($callback)+! { $args
            marks: a_record_that_was_not_marked_is_not_seen [];
            marks: a_marked_record_is_seen_and_no_other [];
            marks: a_mark_past_the_checkpoint_is_kept_while_the_cut_moves [];
            marks: what_lies_behind_the_stored_cut_is_known_though_the_step_went_further [];
            marks: a_mark_again_changes_nothing [];
            marks: scopes_that_look_alike_never_mix [];
            marks: another_life_of_the_bus_has_seen_nothing [];
            marks: offsets_of_every_kind_are_told_apart [];
            marks: an_offset_of_another_kind_is_refused [];
            marks: a_record_without_an_event_is_marked_by_place [];
            marks: answers_stand_in_the_place_of_their_questions [];
            marks: a_step_without_marks_is_a_step [];
            marks: everything_is_there_after_reopening [];
            marks: a_second_opening_sees_what_the_first_has_recorded [];
            marks: many_partitions_at_once_never_mix [];
            marks: a_dropped_step_is_recorded_whole_or_not_at_all [];
            marks: marks_alone_are_recorded_or_refused [];
            marks: a_probe_leaves_nothing_behind [];
            events: a_copy_further_on_is_known_by_its_event [];
            events: a_copy_in_a_child_of_the_partition_is_known [];
            events: a_mark_is_never_its_own_copy [];
            events: a_copy_is_known_long_after_the_checkpoint_has_passed [];
            events: a_copy_that_was_marked_itself_is_seen_where_it_is [];
            events: events_of_other_subscribers_topics_and_lives_are_no_copies [];
            events: event_ids_alone_are_no_guard [];
            fencing: a_stale_lease_records_nothing [];
            fencing: a_higher_epoch_takes_over [];
            fencing: fencing_is_of_one_partition [];
            fencing: fencing_outlives_reopening [];
            fencing: a_second_opening_fences_the_first [];
            fencing: a_lease_has_an_owner [];
            forgetting: old_marks_before_the_checkpoint_are_forgotten [];
            forgetting: the_oldest_are_forgotten_first [];
            forgetting: a_mark_past_the_checkpoint_is_kept_however_old [];
            forgetting: only_the_subscribers_own_marks_are_forgotten [];
            forgetting: marks_without_a_checkpoint_are_forgotten_by_age [];
            forgetting: marks_behind_a_cut_are_forgotten_on_purpose [];
            forgetting: going_back_behind_the_checkpoint_makes_its_records_new [];
            forgetting: a_cut_of_another_kind_forgets_nothing [];
            model: random_steps_agree_with_a_plain_model [];
            transactions: a_step_commits_its_checkpoint [KeepsCheckpoints];
            transactions: a_refused_checkpoint_records_no_mark [KeepsCheckpoints];
            transactions: effects_marks_and_checkpoint_come_together [Transactions];
            transactions: undoing_takes_back_one_record_alone [Transactions];
            transactions: a_dropped_transaction_leaves_nothing [Transactions];
            transactions: a_refused_commit_leaves_no_effect [Transactions];
            transactions: of_two_transactions_on_one_partition_one_commits [Transactions];
            transactions: letters_come_with_the_commit_and_not_before [Transactions];
            transactions: a_refused_or_dropped_transaction_leaves_no_letter [Transactions];
            transactions: a_retried_letter_ends_with_its_effect_and_its_mark [Transactions];
            transactions: of_two_retries_of_a_letter_one_has_its_effect [Transactions];
            transactions: a_dropped_retry_leaves_the_letter_open [Transactions];
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

/// All scenarios of the suite of marks.
#[must_use]
pub fn processed_scenarios() -> &'static [Scenario<ProcessedCase>] {
    const ALL: &[Scenario<ProcessedCase>] = __processed_scenarios!([table], ());
    ALL
}
