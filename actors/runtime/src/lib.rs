//! actix, confined: keeper, inlet, bounded mailboxes, drain, jobs
