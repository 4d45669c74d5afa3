//! Project tasks: smoke, test, bench.

fn main() {}
