//! Annotations tell.

use std::sync::Arc;

use eb_contract::{EventBusPublisher, PublishRecord, Topic};

type Bus = Arc<dyn EventBusPublisher>;

struct Shop {
    bus: Bus,
    client: async_nats::Client,
}

fn of_parameter(bus: &dyn EventBusPublisher, topic: &Topic, record: PublishRecord) {
    let _ = bus.publish(topic, record); //~ publish-past-gate
}

fn of_generic<P: EventBusPublisher>(p: P, topic: &Topic, records: Vec<PublishRecord>) {
    let _ = p.publish_batch(topic, records); //~ publish-past-gate
}

fn of_bound<Q>(q: Arc<Q>, topic: &Topic, record: PublishRecord)
where
    Q: EventBusPublisher,
{
    let _ = q
        .clone()
        .publish(topic, record); //~ publish-past-gate
}

fn of_impl(it: impl EventBusPublisher, topic: &Topic, record: PublishRecord) {
    drop(it.publish(topic, record)); //~ publish-past-gate
}

impl Shop {
    fn of_field(&self, topic: &Topic, record: PublishRecord) {
        let _ = self.bus.publish(topic, record); //~ publish-past-gate
    }

    async fn foreign(&self) {
        // Another bus altogether.
        let _ = self.client.publish("subject", "payload".into()).await;
    }

    fn in_a_macro(&self, topic: &Topic, record: PublishRecord) {
        assert!(self.bus.publish(topic, record).is_ready()); //~ publish-past-gate
    }

    fn in_tokens(&self, topic: &Topic, record: PublishRecord) {
        select! {
            done = self.bus.publish(topic, record) => done, //~ publish-past-gate
            _ = later() => {}
        }
    }
}

fn as_a_path(bus: &Bus, topic: &Topic, record: PublishRecord) {
    let _ = EventBusPublisher::publish(&**bus, topic, record.clone()); //~ publish-past-gate
    let _ = <dyn EventBusPublisher>::publish(&**bus, topic, record.clone()); //~ publish-past-gate
    let _ = <Bus as EventBusPublisher>::publish_batch(bus, topic, vec![record]); //~ publish-past-gate
    let handed_on = eb_file::FilePublisher::publish; //~ publish-past-gate
    drop(handed_on);
}
