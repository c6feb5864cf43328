//! Port State: keys with revisions, compare-and-set, watch; redb implementation and conformance suite
