//! Port Jobs: durable work; redb implementation and conformance suite
