//! The list of all lease scenarios.

use crate::Scenario;
use crate::lease::{LeaseCase, claims, heartbeats, races, reports};

/// Hands the list to another macro, as `(args) theme: name [needs];` lines.
#[doc(hidden)]
#[macro_export]
macro_rules! __lease_scenarios {
    ([$($callback:tt)+], $args:tt) => {
        $($callback)+! { $args
            claims: a_free_partition_is_held_by_whoever_claims_it [];
            claims: the_first_epoch_lies_above_any_that_was_counted [];
            claims: the_holder_claims_again_and_keeps_its_epoch [];
            claims: a_late_claim_never_brings_the_end_forward [];
            claims: an_ended_lease_goes_to_the_next_under_a_higher_epoch [];
            claims: whoever_comes_back_after_the_end_has_a_higher_epoch [];
            claims: a_released_lease_is_free_at_once_under_a_higher_epoch [];
            claims: releasing_what_is_not_held_changes_nothing [];
            claims: owners_and_times_to_live_have_limits [];
            claims: names_that_look_alike_never_mix [];
            claims: a_list_is_sorted_and_says_what_is_left [];
            claims: leases_and_epochs_outlive_reopening [];
            claims: a_second_opening_sees_the_same_leases [];
            claims: a_probe_leaves_nothing_behind [];
            heartbeats: a_heartbeat_renews_what_is_held [];
            heartbeats: a_heartbeat_answers_each_lease_in_its_place [];
            heartbeats: an_ended_lease_is_not_renewed [];
            heartbeats: the_living_workers_are_those_of_the_same_consumer_and_topic [];
            heartbeats: a_worker_that_falls_silent_is_gone [];
            heartbeats: whoever_leaves_is_gone_and_its_leases_are_free [];
            reports: a_report_is_shown_with_its_lease_until_the_next_one [];
            reports: a_report_is_not_shown_once_its_lease_has_ended [];
            reports: a_new_holder_is_not_shown_with_the_report_of_the_last [];
            reports: whoever_does_not_hold_the_lease_reports_nothing [];
            races: of_many_who_race_one_gets_it [];
            races: one_holds_it_at_any_time [];
            races: random_calls_agree_with_a_plain_model [];
        }
    };
}

macro_rules! table {
    (() $($theme:ident: $name:ident [$($need:ident),*];)*) => {
        &[$(Scenario {
            theme: stringify!($theme),
            name: stringify!($name),
            needs: &[],
            run: |case| Box::pin($theme::$name(case)),
        }),*]
    };
}

/// All scenarios of the lease suite.
#[must_use]
pub fn lease_scenarios() -> &'static [Scenario<LeaseCase>] {
    const ALL: &[Scenario<LeaseCase>] = __lease_scenarios!([table], ());
    ALL
}
