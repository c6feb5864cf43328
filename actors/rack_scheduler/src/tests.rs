//! The core by table and by property, and beside an exhaustive search; the engine on real state, and in simulation.

mod asks;
mod exhaustive;
mod following;
mod hosts;
mod placing;
mod residents;
mod simulation;
mod standing;
