//! `eb topics`

use serde_json::json;

use crate::{Place, exists};

#[test]
fn a_topic_is_made_with_so_many_partitions_and_asking_again_is_fine() {
    let place = Place::new();
    let made = place.eb(&["topics", "create", "t.new", "--shards", "4"]).one();
    assert_eq!(
        (&made["topic"], &made["partitions"], &made["records"]),
        (&json!("t.new"), &json!(4), &json!(0))
    );
    assert_eq!(place.eb(&["topics", "create", "t.new", "--partitions", "4"]).one(), made);
    assert_eq!(place.eb(&["topics"]).one(), made);
    assert_eq!(place.eb(&["topics", "list"]).one(), made);

    let other = place.eb(&["topics", "create", "t.new", "--shards", "5"]).ended(1);
    assert!(other.stderr.contains("t.new") && other.stderr.contains('4'), "{other:?}");
    assert_eq!(other.stderr.lines().count(), 1);
    assert_eq!(place.eb(&["topics"]).one(), made);
}

#[test]
fn without_a_name_the_topics_of_the_profile_are_made() {
    let place = Place::new();
    let made = place.eb(&["topics", "create"]).ended(0).lines();
    let made: Vec<_> = made.iter().map(|line| (&line["topic"], &line["partitions"])).collect();
    let one = json!(1);
    assert_eq!(
        made,
        [
            (&json!("fp.bus.traffic.v1"), &one),
            (&json!("fp.bus.control.v1"), &one),
            (&json!("fp.bus.audit.v1"), &one)
        ]
    );
    let refused = place.eb(&["topics", "create", "--shards", "2"]).ended(2);
    assert!(refused.stderr.contains("<TOPIC>") || refused.stderr.contains("[TOPIC]"), "{refused:?}");
    assert_eq!(place.eb(&["topics", "create", "a/b"]).ended(2).stdout, "");
}

#[test]
fn listing_makes_nothing() {
    let place = Place::new();
    place.eb(&["topics"]).ended(0);
    assert!(!exists(&place.path("runs")));
}
