//! Half a file.

fn whole() {}

fn half() -> { //~ unreadable
