//! The macros that turn a suite into tests.

/// Turns a list of scenarios into tests.
#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    (($run:path, $factory:expr) $($theme:ident: $name:ident [$($need:ident),*];)*) => {
        $(
            #[test]
            fn $name() {
                $crate::report(stringify!($name), $run(stringify!($name), &$factory));
            }
        )*
    };
}

/// Expands to one test per scenario of the bus suite for a [`BusFactory`](crate::BusFactory), and one that prints
/// which are run and which are not.
#[macro_export]
macro_rules! bus_suite {
    ($factory:expr) => {
        $crate::__bus_scenarios!([$crate::__tests], ($crate::run_bus_scenario, $factory));

        #[test]
        fn the_plan_and_the_capabilities_agree() {
            let factory = $factory;
            $crate::print_plan(&$crate::bus_plan(&factory));
            $crate::report("the_plan_and_the_capabilities_agree", $crate::check_bus_plan(&factory));
        }
    };
}

/// Expands to one test per scenario of the checkpoint suite for a
/// [`CheckpointFactory`](crate::CheckpointFactory), and one that prints which are run and which are not.
#[macro_export]
macro_rules! checkpoint_store_suite {
    ($factory:expr) => {
        $crate::__checkpoint_scenarios!([$crate::__tests], ($crate::run_checkpoint_scenario, $factory));

        #[test]
        fn the_plan_is_not_empty() {
            $crate::print_plan(&$crate::checkpoint_plan(&$factory));
        }
    };
}

/// Expands to one test per scenario of the admission index suite for an
/// [`AdmissionFactory`](crate::AdmissionFactory), and one that prints which are run and which are not.
#[macro_export]
macro_rules! admission_index_suite {
    ($factory:expr) => {
        $crate::__admission_scenarios!([$crate::__tests], ($crate::run_admission_scenario, $factory));

        #[test]
        fn the_plan_is_not_empty() {
            $crate::print_plan(&$crate::admission_plan(&$factory));
        }
    };
}

/// Expands to one test per scenario of the register suite for a [`RegisterFactory`](crate::RegisterFactory).
#[macro_export]
macro_rules! register_store_suite {
    ($factory:expr) => {
        $crate::__register_scenarios!([$crate::__tests], ($crate::run_register_scenario, $factory));

        #[test]
        fn the_plan_is_not_empty() {
            $crate::print_plan(&$crate::register_plan(&$factory));
        }
    };
}

/// Expands to one test per scenario of the lease suite for a
/// [`LeaseFactory`](crate::LeaseFactory), and one that prints which are run and which are not.
#[macro_export]
macro_rules! lease_store_suite {
    ($factory:expr) => {
        $crate::__lease_scenarios!([$crate::__tests], ($crate::run_lease_scenario, $factory));

        #[test]
        fn the_plan_is_not_empty() {
            $crate::print_plan(&$crate::lease_plan(&$factory));
        }
    };
}

/// Expands to one test per scenario of the processed suite for a
/// [`ProcessedFactory`](crate::ProcessedFactory), and one that prints which are run and which are not.
#[macro_export]
macro_rules! processed_store_suite {
    ($factory:expr) => {
        $crate::__processed_scenarios!([$crate::__tests], ($crate::run_processed_scenario, $factory));

        #[test]
        fn the_plan_is_not_empty() {
            $crate::print_plan(&$crate::processed_plan(&$factory));
        }
    };
}

/// Expands to one test per scenario of the dead letter suite for a
/// [`DeadLetterFactory`](crate::DeadLetterFactory), and one that prints which are run and which are not.
#[macro_export]
macro_rules! dead_letter_store_suite {
    ($factory:expr) => {
        $crate::__dead_letter_scenarios!([$crate::__tests], ($crate::run_dead_letter_scenario, $factory));

        #[test]
        fn the_plan_is_not_empty() {
            $crate::print_plan(&$crate::dead_letter_plan(&$factory));
        }
    };
}
