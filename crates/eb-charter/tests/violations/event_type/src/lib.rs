//! Names of events.

use canonical_envelope::EnvelopeBuilder as Envelope;
use serde_json::json;

const ORDER_EVENT_TYPE: &str = "order.line.add"; //~ event-type
const EVENT_TYPES: [&str; 2] = [
    "order.line.added",
    "order.line.cancelled", //~ event-type
];
const LINE: &str = "order.line";

struct Handler {
    event_type: String,
}

fn built(world: &str) -> Result<Vec<u8>, BuildError> {
    let _ = Envelope::new("order.line.shipt");
    let _ = Envelope::new("Order.Line.Added"); //~ event-type
    let _ = Envelope::new(LINE); //~ event-type
    let event_type = "order.added"; //~ event-type
    Envelope::new(
        "order.line.open", //~ event-type
    )
    .manifest_fingerprint(world)
    .producer("shop")
    .source_module(module_path!())
    .schema_version("1.0.0")
    .build()
}

fn elsewhere(event: &Event) {
    let _ = Handler { event_type: "order.line.token".to_owned() }; //~ event-type
    let _ = json!({"event_type": "order.line.delete", "payload": {}}); //~ event-type
    let _ = r#"{"event_type": "order.line.removing"}"#; //~ event-type
    let _ = format!("{{\"event_type\":\"{}\"}}", computed());
    if event.event_type() == "order.line.wanted" || event.event_type != "order.line.want" {} //~ event-type
    match event.event_type() {
        "order.line.sent" => {}
        "order.line.send" | "order.line.paid" => {} //~ event-type
        _ => {}
    }
    // Not event types.
    let _ = json!({"type": "order.line.open", "note": "event_type"});
    let _ = "order.line.open";
}
