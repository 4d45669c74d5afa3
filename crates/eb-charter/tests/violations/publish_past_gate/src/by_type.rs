//! The annotation alone: nothing is imported, and no crate of ours is named.

type Way<T> = std::sync::Arc<T>;

fn by_type(bus: &dyn crate::prelude::EventBusPublisher, it: Way<dyn crate::prelude::EventBusPublisher>) {
    let _ = bus.publish(topic(), record()); //~ publish-past-gate
    let _ = it.publish(topic(), record()); //~ publish-past-gate
}

fn by_bound<B>(b: &B)
where
    B: crate::prelude::EventBusPublisher,
{
    let _ = b.publish(topic(), record()); //~ publish-past-gate
}
