//! Where a leaf is cut into chunks.
