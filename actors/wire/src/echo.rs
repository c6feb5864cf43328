//! Messages of `echo`, the example of CONTRIBUTING.md.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalog::Room;
use crate::job::JobAccepted;
use crate::messages::{request, sample_accepted, topic};

const CONCERN: &str = "echo";

pub(crate) fn room() -> Room {
    let room = Room::default().request::<EchoSay>().request::<EchoRepeat>();
    room.topic::<EchoSaid>()
}

/// Says a text back.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EchoSay {
    /// The text, at most 1 KiB.
    pub text: String,
}
request! { EchoSay, EchoSaid, "say", Cluster, Changes, "Say a text back", Viewer, Self { text: "hi".into() }, EchoSaid { text: "hi".into() } }

/// Says a text back as often as `echo.times` says, as a job.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EchoRepeat {
    /// The text, at most 1 KiB.
    pub text: String,
}
request! { EchoRepeat, JobAccepted, "repeat", Cluster, Changes, "Say a text often", Operator, Self { text: "hi".into() }, sample_accepted() }

/// Reply, event and result of the job: a text was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EchoSaid {
    /// The text.
    pub text: String,
}
topic! { EchoSaid, "said", "A text was said", Self { text: "hi".into() } }
