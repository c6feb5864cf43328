//! windlass: the composition root. The only crate that knows every other.
//!
//! ```text
//! main -> cli (parse) -> config (load) -> client --+-- gateway::client -- Unix socket -- gateway::server (windlass serve)
//!                                                  +-- house in this process                     |
//!                                                                                              house -> concerns
//! ```
//!
//! [`audit`] keeps who did what. [`concerns`] is THE TABLE: one row a concern. [`backends`] turns configuration into ports. [`house`] puts them together,
//! for the daemon and for a single command alike.

mod audit;
mod backends;
mod cli;
mod client;
mod concerns;
mod demo;
mod gateway;
mod hardening;
mod host_facts;
mod house;
mod log;
mod reload;
mod serve;
mod signals;

#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    cli::main(std::env::args_os())
}
