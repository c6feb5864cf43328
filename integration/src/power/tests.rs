//! Tests of the power-loss layer itself.

mod model;
mod recording;
