//! The routes, asked in process: a real live store, a real SQL service, and a history that is whatever the test put in.

mod access;
mod answers;
mod document;
mod errors;
mod fixture;
mod grid;
mod lists;
mod operations;
mod serving;
mod statements;
mod streams;
