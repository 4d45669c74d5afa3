//! Reserving: who may publish a key.
//!
//! Two statements, sent together, each its own transaction:
//! 1. **insert** a reservation for every key that is neither admitted nor reserved (unique by key: of two gates one
//!    inserts, the other's insert does nothing);
//! 2. **look** at what is there now: the entry, or the reservation and whose it is.
//!
//! The look comes after the insert has committed, and that order is what admits nothing twice: a gate that confirms
//! a key deletes its reservation in the transaction that stores the entry, so an insert that found no reservation any
//! more is followed by a look that finds the entry. (A single statement would look with a snapshot from before.) Such
//! an insert is taken back.
//!
//! A reservation of this very gate that nobody here holds is one whose answer was lost, or whose release failed: nothing
//! is being published under it, and it is given out again, renewed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::{AdmissionEntry, ReservationId, ReserveRequest, Reserved};
use eb_contract::{BoxFuture, Error, ErrorKind, Result, Topic};
use tokio_postgres::Row;

use super::batch::Work;
use super::row::{KeyBytes, entry, key_bytes, owner};
use super::{OP_RESERVE, Shared, repeat};
use crate::error::Step;

/// How often keys are asked for again that were released between the insert and the look.
const ROUNDS: u32 = 3;

/// What the requests of a batch mostly have in common, as JSON.
struct Shape {
    start: String,
    policy: String,
}

/// A request, ready to be sent.
pub(super) struct Item {
    key: KeyBytes,
    payload_hash: [u8; 32],
    topic: Topic,
    shape: Arc<Shape>,
}

/// Prepares requests; neighbours with the same start cuts and policy share them.
pub(super) fn items(requests: &[ReserveRequest]) -> Result<Vec<Item>> {
    let json = |e: serde_json::Error| {
        Error::new(ErrorKind::InvalidInput, OP_RESERVE, "a request cannot be written as JSON").with_source(e)
    };
    let mut items: Vec<Item> = Vec::with_capacity(requests.len());
    for (n, request) in requests.iter().enumerate() {
        let before = n.checked_sub(1).map(|b| (&requests[b], &items[b]));
        let shape = match before {
            Some((r, item)) if r.start == request.start && r.policy == request.policy => item.shape.clone(),
            _ => Arc::new(Shape {
                start: serde_json::to_string(&request.start).map_err(json)?,
                policy: serde_json::to_string(request.policy.as_ref()).map_err(json)?,
            }),
        };
        let topic = request.topic.clone();
        items.push(Item { key: key_bytes(&request.key), payload_hash: request.payload_hash, topic, shape });
    }
    Ok(items)
}

/// What a look found.
enum Found {
    Admitted { entry: AdmissionEntry, ours: Option<i64> },
    Ours { id: i64, lease_left: Duration },
    Others { owner: String, lease_left: Duration },
    Nothing,
}

/// Reserves batches.
pub(super) struct Reserving(pub(super) Arc<Shared>);

impl Work for Reserving {
    type Item = Item;
    type Answer = Reserved;

    fn run(self: Arc<Self>, items: Vec<Item>) -> BoxFuture<'static, Result<Vec<Reserved>>> {
        Box::pin(async move { self.0.reserve(items).await })
    }

    fn unclaimed(&self, answers: Vec<Reserved>) {
        let mut held = self.0.held.lock();
        for answer in answers {
            if let Reserved::Fresh(id) = answer {
                held.remove(&id.0);
            }
        }
    }
}

impl Shared {
    async fn reserve(&self, items: Vec<Item>) -> Result<Vec<Reserved>> {
        let mut answers: Vec<Option<Reserved>> = items.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..items.len()).collect();
        for _ in 0..ROUNDS {
            let asked: Vec<&Item> = open.iter().map(|n| &items[*n]).collect();
            let answered = match repeat(|| self.reserve_once(&asked)).await {
                Ok(answered) => answered,
                Err(e) => {
                    // None is reserved, then: what earlier rounds gave out is nobody's.
                    let fresh = answers.into_iter().flatten().filter_map(|a| match a {
                        Reserved::Fresh(id) => Some(id.0),
                        _ => None,
                    });
                    let mut held = self.held.lock();
                    fresh.for_each(|id| {
                        held.remove(&id);
                    });
                    return Err(e);
                }
            };
            for (n, answer) in open.iter().zip(answered) {
                answers[*n] = answer;
            }
            open.retain(|n| answers[*n].is_none());
            if open.is_empty() {
                break;
            }
        }
        let undecided =
            || Reserved::InFlight { owner: "another gate".to_owned(), lease_left: Duration::ZERO };
        Ok(answers.into_iter().map(|a| a.unwrap_or_else(undecided)).collect())
    }

    /// One insert and one look. `None` for keys whose reservation vanished in between.
    async fn reserve_once(&self, items: &[&Item]) -> Result<Vec<Option<Reserved>>> {
        let (inserted, found) = self.insert_and_look(items).await?;
        let mut moot = Vec::new();
        let mut renew: Vec<(usize, i64, Duration)> = Vec::new();
        let mut answers = Vec::with_capacity(items.len());
        {
            let mut held = self.held.lock();
            for (n, found) in found.into_iter().enumerate() {
                answers.push(match found {
                    Found::Admitted { entry, ours } => {
                        moot.extend(ours.filter(|id| inserted.contains(id)));
                        Some(Reserved::Admitted(entry))
                    }
                    Found::Others { owner, lease_left } => Some(Reserved::InFlight { owner, lease_left }),
                    Found::Nothing => None,
                    Found::Ours { id, lease_left } => {
                        // Ids come from a sequence that starts at 1.
                        let number = id.unsigned_abs();
                        if !held.insert(number) {
                            let owner = self.owner();
                            Some(Reserved::InFlight { owner, lease_left })
                        } else {
                            if !inserted.contains(&id) {
                                renew.push((n, id, lease_left));
                            }
                            Some(Reserved::Fresh(ReservationId(number)))
                        }
                    }
                });
            }
        }
        let renewed = self.settle(items, &moot, &renew).await;
        let renewed = match renewed {
            Ok(renewed) => renewed,
            Err(e) => {
                let mut held = self.held.lock();
                for answer in answers.into_iter().flatten() {
                    if let Reserved::Fresh(id) = answer {
                        held.remove(&id.0);
                    }
                }
                return Err(e);
            }
        };
        for (n, id, _) in renew {
            if !renewed.contains(&id) {
                // Another gate has settled it meanwhile.
                self.held.lock().remove(&id.unsigned_abs());
                answers[n] = None;
            }
        }
        Ok(answers)
    }

    async fn insert_and_look(&self, items: &[&Item]) -> Result<(HashSet<i64>, Vec<Found>)> {
        let mut shapes: Vec<&Arc<Shape>> = Vec::new();
        let mut shape_numbers: Vec<i32> = Vec::with_capacity(items.len());
        for item in items {
            // Neighbours share, and a batch has few calls: looking from the end finds it at once.
            let known = shapes.iter().rposition(|s| Arc::ptr_eq(s, &item.shape));
            let number = known.unwrap_or_else(|| {
                shapes.push(&item.shape);
                shapes.len() - 1
            });
            // Arrays of the database count from 1.
            shape_numbers.push(i32::try_from(number + 1).unwrap_or(i32::MAX));
        }
        let keys: Vec<&[u8]> = items.iter().map(|i| i.key.as_slice()).collect();
        let hashes: Vec<&[u8]> = items.iter().map(|i| i.payload_hash.as_slice()).collect();
        let topics: Vec<&str> = items.iter().map(|i| i.topic.as_str()).collect();
        let starts: Vec<&str> = shapes.iter().map(|s| s.start.as_str()).collect();
        let policies: Vec<&str> = shapes.iter().map(|s| s.policy.as_str()).collect();
        let mut connection = self.db.connection(OP_RESERVE).await?;
        let (inserted, rows) = connection
            .rows_in_turn(
                (
                    &self.sql.reserve,
                    &[
                        &keys,
                        &hashes,
                        &topics,
                        &shape_numbers,
                        &starts,
                        &policies,
                        &self.gate,
                        &self.lease_micros,
                    ],
                ),
                (&self.sql.look, &[&keys, &self.gate]),
            )
            .await?;
        let inserted = inserted.iter().map(|row| row.get(0)).collect();
        let found = rows.iter().map(|row| self.found(row)).collect::<Result<_>>()?;
        Ok((inserted, found))
    }

    fn found(&self, row: &Row) -> Result<Found> {
        let (id, gate): (Option<i64>, Option<i64>) = (row.get(7), row.get(8));
        if let Some(entry) = entry(OP_RESERVE, self.db.place(), row)? {
            return Ok(Found::Admitted { entry, ours: id.filter(|_| gate == Some(self.gate)) });
        }
        let (Some(id), Some(gate)) = (id, gate) else { return Ok(Found::Nothing) };
        let lease_left = row.get::<_, Option<i64>>(9).and_then(|left| u64::try_from(left).ok());
        let lease_left = Duration::from_micros(lease_left.unwrap_or(0));
        Ok(if gate == self.gate {
            Found::Ours { id, lease_left }
        } else {
            Found::Others { owner: owner(row.get(10), gate), lease_left }
        })
    }

    /// Takes back reservations of keys that turned out to be admitted, and renews those that are given out again.
    /// Gives back which were renewed.
    async fn settle(
        &self,
        items: &[&Item],
        moot: &[i64],
        renew: &[(usize, i64, Duration)],
    ) -> Result<HashSet<i64>> {
        if !moot.is_empty() {
            self.delete(moot).await?;
        }
        if renew.is_empty() {
            return Ok(HashSet::new());
        }
        let of = |read: fn(&Item) -> &str| renew.iter().map(|(n, ..)| read(items[*n])).collect::<Vec<_>>();
        let ids: Vec<i64> = renew.iter().map(|(_, id, _)| *id).collect();
        let hashes: Vec<&[u8]> = renew.iter().map(|(n, ..)| items[*n].payload_hash.as_slice()).collect();
        let mut connection = self.db.connection(OP_RESERVE).await?;
        let rows = connection
            .rows(
                Step::Harmless,
                &self.sql.give_again,
                &[
                    &ids,
                    &hashes,
                    &of(|i| i.topic.as_str()),
                    &of(|i| i.shape.start.as_str()),
                    &of(|i| i.shape.policy.as_str()),
                    &self.gate,
                    &self.lease_micros,
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
