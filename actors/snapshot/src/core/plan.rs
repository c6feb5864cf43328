//! What a restore copies, fetches and punches, and in which order.
