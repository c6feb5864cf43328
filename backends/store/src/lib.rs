//! Port Store: objects; memory implementation, conformance suite and decorators
