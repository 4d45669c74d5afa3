//! Event types in YAML: values of `event_type`, and keys or items of `event_types`.

use granit_parser::{Event, Parser};

use crate::violation::At;

/// An event type and its place.
pub(crate) type Found = (String, At);

enum Open {
    Map { key: Option<String> },
    List,
}

struct Level {
    open: Open,
    /// The key that this map or list stands under.
    under: Option<String>,
}

/// All event types of a text.
///
/// # Errors
/// Where it is no YAML, and why.
pub(crate) fn event_types(text: &str) -> Result<Vec<Found>, (At, String)> {
    let options = granit_parser::options! { flow_nesting_limit: 64, block_nesting_limit: 64 };
    let mut found = Vec::new();
    let mut levels: Vec<Level> = Vec::new();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|e| {
            (At { line: e.marker().line(), column: e.marker().col() + 1 }, format!("not YAML: {}", e.info()))
        })?;
        let at = At { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::MappingStart(..) => open(&mut levels, Open::Map { key: None }),
            Event::SequenceStart(..) => open(&mut levels, Open::List),
            Event::MappingEnd | Event::SequenceEnd => drop(levels.pop()),
            Event::Scalar(text, ..) => scalar(&mut levels, &text, at, &mut found),
            Event::Alias(..) => drop(value_key(&mut levels)),
            _ => {}
        }
    }
    Ok(found)
}

fn open(levels: &mut Vec<Level>, open: Open) {
    let under = value_key(levels);
    levels.push(Level { open, under });
}

/// The key that the next value stands under; it is used up.
fn value_key(levels: &mut [Level]) -> Option<String> {
    match levels.last_mut() {
        Some(Level { open: Open::Map { key }, .. }) => key.take(),
        Some(Level { open: Open::List, under }) => under.clone(),
        None => None,
    }
}

fn scalar(levels: &mut [Level], text: &str, at: At, found: &mut Vec<Found>) {
    let Some(level) = levels.last_mut() else { return };
    let names = level.under.as_deref() == Some("event_types");
    let is_type = match &mut level.open {
        Open::Map { key: key @ None } => {
            *key = Some(text.to_owned());
            names
        }
        Open::Map { key } => key.take().as_deref() == Some("event_type"),
        Open::List => names,
    };
    if is_type {
        found.push((text.to_owned(), at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_are_found_where_policies_name_them() {
        let text = "event_types:\n  a.b.added: traffic\npolicies:\n  - event_type: c.d.sent\n    class: x\n  - {event_type: e.f.gone}\nhandlers:\n  event_types: [g.h.put]\nother: {event: x}\n";
        let found = event_types(text).unwrap();
        let names: Vec<_> = found.iter().map(|(n, at)| (n.as_str(), at.line, at.column)).collect();
        assert_eq!(
            names,
            [("a.b.added", 2, 3), ("c.d.sent", 4, 17), ("e.f.gone", 6, 18), ("g.h.put", 8, 17)]
        );
        assert!(event_types("a: [").is_err());
    }
}
