//! `windlass snapshot export` and `windlass restore --output`.
