//! The `eb` command line.

fn main() {}
