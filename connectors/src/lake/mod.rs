//! The lake.
