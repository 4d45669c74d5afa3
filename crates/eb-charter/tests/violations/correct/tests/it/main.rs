//! Tests.

use eb_contract::EventBusPublisher;

fn fill(to: &dyn EventBusPublisher) {
    let _ = to.publish(topic(), record());
}
