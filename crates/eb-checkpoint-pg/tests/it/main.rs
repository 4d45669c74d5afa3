//! The stores against a real Postgres: one server for this binary (or the one that `EB_TEST_PG_URL` names), a schema
//! for each test.

mod admissions;
mod checkpoints;
mod consumers;
mod gates;
mod handlers;
mod losses;
mod migrations;
mod registers;
mod security;
mod support;
mod transactions;
