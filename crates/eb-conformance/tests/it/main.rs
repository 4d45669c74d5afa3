//! The suite against deliberately broken buses and stores: each must be caught.

mod bent_bus;
mod bent_cursor;
mod bent_index;
mod bent_leases;
mod bent_letters;
mod bent_marks;
mod bent_publisher;
mod bent_reader;
mod bent_store;
mod catches;
mod catches_consumers;
