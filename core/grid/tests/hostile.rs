//! What is wrong, odd or too much: an answer or a precise error, never a panic, a hang or a number that means nothing.
//!
//! `errors` is the table of error texts, `answers` the odd grids that have an answer, `updates` what may happen to a grid later,
//! `mutations` a valid dataset with anything changed, `properties` what must hold of every feeder.
#![allow(clippy::unwrap_used)]

mod feeder;

#[path = "hostile/answers.rs"]
mod answers;
#[path = "hostile/errors.rs"]
mod errors;
#[path = "hostile/mutations.rs"]
mod mutations;
#[path = "hostile/properties.rs"]
mod properties;
#[path = "hostile/small_grid.rs"]
mod small_grid;
#[path = "hostile/solve.rs"]
mod solve;
#[path = "hostile/updates.rs"]
mod updates;
