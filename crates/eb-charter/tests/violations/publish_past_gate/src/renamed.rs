//! Other names.

use eb_contract::{EventBusPublisher as Sink, PublishRecord, Topic};

fn renamed(to: &impl Sink, topic: &Topic, record: PublishRecord) {
    let _ = to.publish(topic, record.clone()); //~ publish-past-gate
    let _ = Sink::publish(to, topic, record); //~ publish-past-gate
}
