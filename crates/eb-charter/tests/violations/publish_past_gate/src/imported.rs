//! No annotation at all, but the trait is in scope.

use eb_contract::EventBusPublisher as _;

fn unseen(shop: crate::Shop) {
    let _ = shop.whatever().publish(topic(), record()); //~ publish-past-gate
    // Not the trait's: another number of arguments.
    let _ = shop.press().publish("title");
    let _ = shop.client().publish("topic", 1, true, "payload");
}
