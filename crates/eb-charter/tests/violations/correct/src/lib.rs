//! A shop that keeps the charter.

mod copy;
#[cfg(test)]
mod fixtures;

use canonical_envelope::EnvelopeBuilder;
use ig_gate::Gate;

async fn sell(gate: &Gate) -> Result<(), Box<dyn std::error::Error>> {
    let event = EnvelopeBuilder::new("order.line.sold")
        .random_event_id()
        .producer("shop")
        .source_module(module_path!())
        .schema_version("1.0.0")
        .build()?;
    gate.admit(event).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use eb_contract::EventBusPublisher;

    #[test]
    fn a_bus_of_its_own() {
        let _ = bus().publish(topic(), record());
    }
}
