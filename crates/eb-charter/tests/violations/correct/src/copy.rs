//! Copies.

use eb_contract::EventBusPublisher;

fn copy(to: &dyn EventBusPublisher) {
    let _ = to.publish(topic(), record());
}
