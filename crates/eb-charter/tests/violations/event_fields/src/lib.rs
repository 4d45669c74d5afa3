//! Where an event comes from.

use canonical_envelope::EnvelopeBuilder;
use serde_json::json;

fn whole() {
    let _ = EnvelopeBuilder::new("order.line.added")
        .producer("shop")
        .source_module(module_path!())
        .schema_version("1.0.0")
        .payload(&1)
        .build();
}

fn lacks_its_producer() {
    let _ = EnvelopeBuilder::new("order.line.added") //~ event-fields
        .source_module(module_path!())
        .schema_version("1.0.0")
        .build();
}

fn lacks_it_in_steps(version: Option<&str>) {
    let mut builder = EnvelopeBuilder::new("order.line.added").producer("shop"); //~ event-fields
    if let Some(version) = version {
        builder = builder.schema_version(version);
    }
    let builder = builder.payload(&1);
    let _ = builder.build();
}

fn two_in_one_function() {
    let whole = EnvelopeBuilder::new("order.line.added").producer("a").source_module("b").schema_version("1");
    let part = EnvelopeBuilder::new("order.line.added").producer("a"); //~ event-fields
    let _ = (whole.build(), part.build());
}

fn named_as_a_function(module: Option<String>) {
    let set = EnvelopeBuilder::source_module;
    let builder = EnvelopeBuilder::new("order.line.added").producer("a").schema_version("1");
    let builder = match module {
        Some(module) => set(builder, module),
        None => builder,
    };
    let _ = builder.build();
}

fn goes_elsewhere() -> EnvelopeBuilder {
    // Who builds it is beyond what is seen here.
    EnvelopeBuilder::new("order.line.added")
}

fn as_json() {
    let _ = json!({ //~ event-fields
        "event_id": "e-1",
        "event_type": "order.line.added",
        "manifest_fingerprint": "0",
        "producer": "shop",
        "payload": {"schema_version": "not the envelope's"},
    });
    let _ = r#"{"event_id":"e","event_type":"order.line.added","manifest_fingerprint":"","producer":"p","schema_version":"1"}"#; //~ event-fields
    let _ = json!({"event_id": "e-1", "event_type": "order.line.added", "manifest_fingerprint": "0", "producer": "shop",
        "source_module": "m", "schema_version": "1.0.0"});
    // Not an envelope.
    let _ = json!({"event_type": "order.line.added", "count": 1});
}
