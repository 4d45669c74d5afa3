//! Nothing of ours is named here; the package depends on it, and names tell.

fn by_name(platform: &crate::Platform, order_publisher: &crate::Handle) {
    let _ = platform.publisher().publish(topic(), record()); //~ publish-past-gate
    let _ = order_publisher.publish(topic(), record()); //~ publish-past-gate
    let _ = platform.anything().publish_batch(topic(), records()); //~ publish-past-gate
    // Two arguments, and a name that says nothing: the limit of what can be seen.
    let _ = platform.newsletter().publish("title", "text");
}
