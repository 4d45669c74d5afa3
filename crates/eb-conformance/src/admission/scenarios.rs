//! The list of all admission index scenarios.

use crate::Scenario;
use crate::admission::{AdmissionCase, durability, entries, lookups, reservations};
use crate::scenario::Need;

/// Hands the list to another macro, as `(args) theme: name [needs];` lines.
#[doc(hidden)]
#[macro_export]
macro_rules! __admission_scenarios {
    ([$($callback:tt)+], $args:tt) => {
        $($callback)+! { $args
            reservations: an_unknown_key_is_fresh [];
            reservations: a_confirmed_key_is_admitted_where_it_lies [];
            reservations: a_released_key_is_fresh_again [];
            reservations: answers_stand_in_the_place_of_their_requests [];
            reservations: many_callers_at_once_lose_nothing [];
            reservations: one_gate_has_no_open_reservations [OwnIndex];
            reservations: a_key_in_flight_at_another_gate_is_said_to_be [SharedIndex];
            reservations: open_reservations_say_all_that_was_asked [SharedIndex];
            reservations: a_renewed_reservation_counts_from_then_on_and_others_are_left_alone [SharedIndex];
            entries: what_was_found_in_the_log_is_admitted [];
            entries: applying_again_changes_nothing [];
            entries: an_entry_never_moves_and_callers_are_told_what_stands [];
            entries: applying_settles_what_was_reserved [];
            entries: random_calls_agree_with_a_plain_model [];
            lookups: a_look_up_reserves_nothing [];
            lookups: an_event_is_found_by_its_id_alone [];
            lookups: a_scan_pages_in_key_order_to_the_end [];
            lookups: the_length_counts_admitted_events [];
            lookups: a_probe_succeeds_and_changes_nothing [];
            durability: a_checkpoint_comes_back_as_stored [];
            durability: policies_are_remembered_in_order [];
            durability: everything_is_there_after_a_clean_close [Reopen];
            durability: a_checkpoint_is_never_there_without_its_entries [Crash];
            durability: a_policy_outlives_a_crash [Crash];
            durability: what_a_crash_lost_can_be_applied_again [Crash];
            durability: a_closed_index_refuses [];
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

/// All scenarios of the admission index suite.
#[must_use]
pub fn admission_scenarios() -> &'static [Scenario<AdmissionCase>] {
    const ALL: &[Scenario<AdmissionCase>] = __admission_scenarios!([table], ());
    ALL
}
