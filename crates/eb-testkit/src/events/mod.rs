//! Realistic platform events from a seed, each with the answer that a correct gate must give.
//!
//! [`Generator`] is an endless iterator. The same seed and [`Mix`] give the same bytes on every machine and in every
//! version (a golden digest sees to it); times come from the seed too, never from the clock. Each [`Event`] is one
//! line of NDJSON without its line break: about 650 bytes, large ones 8–64 KiB. Bytes of invalid events need not be
//! UTF-8, but hold no line break either.
//!
//! Expectations are for a gate with the default configuration (see [`Class`] for the pins), empty at first, that
//! answers the events **in this order**. A gate that takes several at once may see a duplicate before its original,
//! and then the two swap roles: keep [`Mix::distance`] above the number in flight.
//!
//! The generator keeps the last 1,024 admitted events to repeat them; nothing else grows.
//!
//! ```
//! use eb_testkit::events::{Expected, Generator, Mix};
//!
//! let events: Vec<_> = Generator::new(7, Mix::default()).take(1_000).collect();
//! let admitted = events.iter().filter(|event| event.expected == Expected::Admit).count();
//! assert!(admitted > 800);
//! ```

mod flaw;
mod json;
mod kinds;
mod world;

use std::collections::VecDeque;

use crate::Rng;

pub use flaw::Flaw;
pub use kinds::{CATALOGUE, Class, EventType};

use json::{Object, Style};
use world::World;

/// Shares of events out of the ordinary, each in thousandths of all events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// Byte for byte the same as an earlier event.
    pub repeated: u32,
    /// The same as an earlier event, written in another way: other white space, order of keys, escapes.
    pub rewritten: u32,
    /// With an earlier event's identity, but another payload.
    pub conflicting: u32,
    /// Invalid, in one of the ways of [`Flaw`].
    pub invalid: u32,
    /// Valid and new, with a payload of 8–64 KiB.
    pub large: u32,
    /// How many events at least lie between an event and what repeats, rewrites or contradicts it.
    pub distance: usize,
}

impl Mix {
    /// Only valid, new events of ordinary size.
    pub const CLEAN: Self =
        Self { repeated: 0, rewritten: 0, conflicting: 0, invalid: 0, large: 0, distance: 0 };
}

impl Default for Mix {
    fn default() -> Self {
        Self { repeated: 30, rewritten: 20, conflicting: 10, invalid: 30, large: 5, distance: 0 }
    }
}

/// What a correct gate must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expected {
    /// `ADMIT`.
    Admit,
    /// `DUPLICATE`, with the `EbRef` that the event at this place of the sequence (from 0) was admitted at.
    DuplicateOf(usize),
    /// `QUARANTINE` for this reason.
    Quarantine(&'static str),
}

/// How an event was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Valid and new.
    New,
    /// Valid, new and large.
    Large,
    /// The bytes of the event at this place.
    Repeated(usize),
    /// The event at this place, written in another way.
    Rewritten(usize),
    /// The identity of the event at this place, with another payload.
    Conflicting(usize),
    /// A new event that was then damaged.
    Invalid(Flaw),
}

/// One generated event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// One line without its line break.
    pub bytes: Vec<u8>,
    /// What a correct gate must answer.
    pub expected: Expected,
    /// How it was made.
    pub origin: Origin,
    /// Its type, before any damage.
    pub event_type: &'static EventType,
    /// Its identity, before any damage.
    pub event_id: String,
    /// The partition key by the default profile of its class; of no meaning where it is quarantined.
    pub partition_key: String,
}

/// An endless sequence of events. See the [module](self).
#[derive(Debug, Clone)]
pub struct Generator {
    rng: Rng,
    mix: Mix,
    world: World,
    made: usize,
    /// The latest admitted events, oldest first.
    admitted: VecDeque<Admitted>,
}

#[derive(Debug, Clone)]
struct Admitted {
    place: usize,
    envelope: Object,
    event_type: &'static EventType,
    event_id: String,
    partition_key: String,
}

/// How many admitted events are kept to be repeated.
const KEPT: usize = 1024;

impl Generator {
    /// Starts the sequence of this seed.
    ///
    /// # Panics
    /// When the shares of `mix` sum up to more than 1,000, or its distance is 1,024 or more.
    #[must_use]
    pub fn new(seed: u64, mix: Mix) -> Self {
        let sum = mix.repeated + mix.rewritten + mix.conflicting + mix.invalid + mix.large;
        assert!(sum <= 1000, "the shares of a mix are thousandths; these sum up to {sum}");
        assert!(mix.distance < KEPT, "only the last {KEPT} events can be repeated");
        let mut rng = Rng::new(seed);
        let world = World::new(seed, &mut rng);
        Self { rng, mix, world, made: 0, admitted: VecDeque::with_capacity(KEPT) }
    }

    /// A new, valid event.
    fn fresh(&mut self, large: bool) -> Admitted {
        let event_type = if large { kinds::large() } else { kinds::choose(&mut self.rng) };
        let (envelope, event_id, merchant) = self.world.envelope(event_type, large, &mut self.rng);
        let partition_key = match event_type.class {
            Class::Traffic => merchant.unwrap_or_else(|| event_id.clone()),
            Class::Control => self.world.run_id.clone(),
            Class::Audit => event_id.clone(),
        };
        Admitted { place: self.made, envelope, event_type, event_id, partition_key }
    }

    /// An earlier admitted event, if one lies far enough back.
    fn earlier(&mut self) -> Option<Admitted> {
        let latest = self.made.checked_sub(self.mix.distance + 1)?;
        let eligible = self.admitted.partition_point(|event| event.place <= latest);
        (eligible > 0).then(|| self.admitted[self.rng.index(eligible)].clone())
    }

    fn event(&self, of: Admitted, bytes: Vec<u8>, expected: Expected, origin: Origin) -> Event {
        let Admitted { event_type, event_id, partition_key, .. } = of;
        Event { bytes, expected, origin, event_type, event_id, partition_key }
    }

    fn again(&mut self, draw: u32) -> Option<Event> {
        let mut of = self.earlier()?;
        let place = of.place;
        let Mix { repeated, rewritten, .. } = self.mix;
        Some(if draw < repeated {
            let bytes = of.envelope.compact();
            self.event(of, bytes, Expected::DuplicateOf(place), Origin::Repeated(place))
        } else if draw < repeated + rewritten {
            let bytes = Style::new(&mut self.rng).write(&of.envelope);
            self.event(of, bytes, Expected::DuplicateOf(place), Origin::Rewritten(place))
        } else {
            let change = self.rng.range(0..1_000_000).to_string();
            of.envelope.payload_mut().push("amendment", json::Value::Raw(change));
            let bytes = of.envelope.compact();
            let expected = Expected::Quarantine("PAYLOAD_HASH_MISMATCH");
            self.event(of, bytes, expected, Origin::Conflicting(place))
        })
    }

    fn next_event(&mut self) -> Event {
        let draw = u32::try_from(self.rng.range(0..1000)).unwrap_or(0);
        let Mix { repeated, rewritten, conflicting, invalid, large, .. } = self.mix;
        let again = repeated + rewritten + conflicting;
        if draw < again
            && let Some(event) = self.again(draw)
        {
            return event;
        }
        if (again..again + invalid).contains(&draw) {
            let of = self.fresh(false);
            let flaw = Flaw::choose(of.event_type.class, &mut self.rng);
            let bytes = flaw.apply(of.event_type.class, of.envelope.clone(), &mut self.rng);
            return self.event(of, bytes, Expected::Quarantine(flaw.reason()), Origin::Invalid(flaw));
        }
        let is_large = (again + invalid..again + invalid + large).contains(&draw);
        let fresh = self.fresh(is_large);
        let bytes = fresh.envelope.compact();
        if !is_large {
            if self.admitted.len() == KEPT {
                self.admitted.pop_front();
            }
            self.admitted.push_back(fresh.clone());
        }
        let origin = if is_large { Origin::Large } else { Origin::New };
        self.event(fresh, bytes, Expected::Admit, origin)
    }
}

impl Iterator for Generator {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let event = self.next_event();
        self.made += 1;
        Some(event)
    }
}

/// One of these words.
fn word(rng: &mut Rng, of: &[&'static str]) -> &'static str {
    of[rng.index(of.len())]
}
