//! The list of all dead letter scenarios.

use crate::Scenario;
use crate::dead_letter::{DeadLetterCase, listing, model, puts, resolving};

/// Hands the list to another macro, as `(args) theme: name [needs];` lines.
#[doc(hidden)]
#[macro_export]
macro_rules! __dead_letter_scenarios {
    ([$($callback:tt)+], $args:tt) => {
        $($callback)+! { $args
            puts: a_letter_comes_back_whole [];
            puts: odd_envelopes_and_keys_come_back_byte_for_byte [];
            puts: odd_texts_and_every_reason_come_back [];
            puts: offsets_of_every_kind_come_back [];
            puts: names_rise [];
            puts: putting_again_answers_the_letter_that_is_there [];
            puts: letters_of_other_consumers_lives_and_places_are_others [];
            puts: a_batch_answers_each_letter_in_its_place [];
            puts: one_beyond_the_limits_is_refused_and_harms_no_other [];
            puts: many_who_put_at_once_lose_nothing [];
            puts: a_dropped_put_is_done_or_not_done [];
            puts: a_resolved_letter_does_not_hide_a_new_failure [];
            puts: a_second_opening_sees_the_same_letters [];
            puts: a_probe_leaves_nothing_behind [];
            listing: pages_follow_each_other_to_the_end [];
            listing: filters_let_through_what_they_name [];
            listing: open_letters_are_counted [];
            listing: keys_are_parked_by_open_letters_that_say_so [];
            listing: open_letters_are_found_by_their_records [];
            listing: a_letter_that_is_not_there_is_not_found [];
            resolving: a_resolved_letter_stays_as_history [];
            resolving: a_letter_is_resolved_once [];
            resolving: of_two_who_resolve_one_succeeds [];
            resolving: a_resolution_needs_a_reason [];
            model: random_calls_agree_with_a_plain_model [];
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

/// All scenarios of the dead letter suite.
#[must_use]
pub fn dead_letter_scenarios() -> &'static [Scenario<DeadLetterCase>] {
    const ALL: &[Scenario<DeadLetterCase>] = __dead_letter_scenarios!([table], ());
    ALL
}
