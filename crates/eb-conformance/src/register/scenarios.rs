//! The list of all register scenarios.

use crate::Scenario;
use crate::register::{RegisterCase, swaps};

/// Hands the list to another macro, as `(args) theme: name [needs];` lines.
#[doc(hidden)]
#[macro_export]
macro_rules! __register_scenarios {
    ([$($callback:tt)+], $args:tt) => {
        $($callback)+! { $args
            swaps: a_register_that_nobody_wrote_is_none [];
            swaps: what_is_swapped_in_is_loaded_back_whole [];
            swaps: another_version_is_refused_and_named [];
            swaps: any_bytes_come_back [];
            swaps: too_large_a_value_or_no_reason_is_refused_and_changes_nothing [];
            swaps: registers_never_mix [];
            swaps: of_concurrent_swaps_exactly_one_wins_each_version [];
            swaps: no_load_shows_an_older_value_than_one_before_it [];
            swaps: a_dropped_swap_is_done_or_not_done [];
            swaps: everything_is_there_after_reopening [];
            swaps: the_history_names_the_newest_changes_first [];
            swaps: a_probe_leaves_nothing_behind [];
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

/// All scenarios of the register suite.
#[must_use]
pub fn register_scenarios() -> &'static [Scenario<RegisterCase>] {
    const ALL: &[Scenario<RegisterCase>] = __register_scenarios!([table], ());
    ALL
}
