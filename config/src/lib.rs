//! Typed configuration: TOML, environment, flags
