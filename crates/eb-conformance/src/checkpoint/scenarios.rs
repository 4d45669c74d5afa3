//! The list of all checkpoint scenarios.

use crate::Scenario;
use crate::checkpoint::{CheckpointCase, commits, fencing, listing, resets};
use crate::scenario::Need;

/// Hands the list to another macro, as `(args) theme: name [needs];` lines.
#[doc(hidden)]
#[macro_export]
macro_rules! __checkpoint_scenarios {
    ([$($callback:tt)+], $args:tt) => {
        $($callback)+! { $args
            commits: an_unknown_checkpoint_is_none [];
            commits: what_is_committed_is_loaded_back_whole [];
            commits: every_form_of_cut_comes_back [];
            commits: the_first_commit_expects_version_zero [];
            commits: a_stale_version_conflicts_and_names_the_current_one [];
            commits: a_cut_that_goes_back_is_refused [];
            commits: cuts_advance_as_numbers [];
            commits: the_same_cut_again_raises_the_version [];
            commits: a_cut_of_another_kind_is_refused [];
            commits: another_incarnation_is_refused [];
            commits: caught_up_at_never_goes_back [];
            commits: many_partitions_commit_at_once [];
            commits: one_refused_checkpoint_never_harms_the_others [];
            commits: of_concurrent_commits_exactly_one_wins_each_version [];
            commits: a_dropped_commit_is_done_or_not_done [];
            commits: everything_is_there_after_reopening [Reopen];
            commits: random_commits_agree_with_a_plain_model [];
            fencing: a_lower_epoch_is_fenced [];
            fencing: another_owner_of_the_same_epoch_is_fenced [];
            fencing: a_higher_epoch_takes_over [];
            fencing: a_lease_has_an_owner [];
            fencing: fencing_outlives_reopening [Reopen];
            listing: a_list_is_sorted_and_complete [];
            listing: a_list_of_one_consumer_holds_its_own_alone [];
            listing: names_that_look_alike_never_mix [];
            listing: a_probe_leaves_nothing_behind [];
            resets: a_reset_needs_a_reason [];
            resets: a_reset_goes_back_and_the_running_consumer_conflicts [];
            resets: a_reset_creates_what_is_not_there [];
            resets: a_reset_keeps_stale_owners_fenced [];
            resets: a_reset_moves_into_another_incarnation [];
            resets: a_reset_forgets_when_the_consumer_was_caught_up [];
            resets: a_reset_outlives_reopening [Reopen];
            resets: resets_leave_their_history [ResetHistory];
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

/// All scenarios of the checkpoint suite.
#[must_use]
pub fn checkpoint_scenarios() -> &'static [Scenario<CheckpointCase>] {
    const ALL: &[Scenario<CheckpointCase>] = __checkpoint_scenarios!([table], ());
    ALL
}
