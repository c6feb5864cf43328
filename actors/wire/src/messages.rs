//! How a message type says what it is: `request!` and `topic!` write out [`Request`](crate::Request) and
//! [`Topic`](crate::Topic), a line for each item of the trait and nothing else. Each concern's room has a constant `CONCERN`,
//! its one spelling, which both take from where they stand. Below: what samples have in common.

use crate::HostId;
use crate::job::{JobAccepted, JobId};

/// `request!(Type, Reply, "verb", Cluster | Host, Reads | Changes | ChangesOnce, "for people", Viewer | Operator | Admin | Host, a
/// sample, a sample of the reply)`: who answers, what it does, who may ask.
macro_rules! request {
    ($kind:ty, $reply:ty, $verb:literal, $address:ident, $intent:ident, $about:literal, $asker:ident, $sample:expr,
     $sample_reply:expr) => {
        impl crate::Request for $kind {
            type Reply = $reply;
            const CONCERN: &'static str = CONCERN;
            const VERB: &'static str = $verb;
            const ADDRESS: crate::Address = crate::Address::$address;
            const INTENT: crate::Intent = crate::Intent::$intent;
            const ABOUT: &'static str = $about;
            const ASKER: crate::Asker = crate::Asker::$asker;
            fn sample() -> Self {
                $sample
            }
            fn sample_reply() -> $reply {
                $sample_reply
            }
        }
    };
}

/// `topic!(Type, "what happened", "for people", a sample)`
macro_rules! topic {
    ($kind:ty, $what:literal, $about:literal, $sample:expr) => {
        impl crate::Topic for $kind {
            const CONCERN: &'static str = CONCERN;
            const WHAT: &'static str = $what;
            const ABOUT: &'static str = $about;
            fn sample() -> Self {
                $sample
            }
        }
    };
}

pub(crate) use {request, topic};

/// An id of anything, for documents and golden tests.
pub(crate) const SAMPLE_ID: &str = "01JCXQ6Y9D3W6V3S1W8Y5Z4K2M";

/// A host, for documents and golden tests.
pub(crate) fn sample_host() -> HostId {
    HostId::new("h1").unwrap_or_else(|_| unreachable!("h1 is a token"))
}

/// What the submission of a job is answered, for documents and golden tests.
pub(crate) fn sample_accepted() -> JobAccepted {
    JobAccepted {
        job: JobId(SAMPLE_ID.into()),
        duplicate: false,
    }
}
