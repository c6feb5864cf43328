//! Port Bus, its in-process implementation, conformance suite and faulty decorator
