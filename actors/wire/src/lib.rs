//! Everything that crosses a mailbox or a host: plain serde types and the subjects that they travel on.
//!
//! Data flows through this crate as bytes and values only: no I/O, no clock, no runtime. A concern meets another
//! concern here and nowhere else.
//!
//! * [`subject`]: the one place that builds and parses subjects.
//! * [`envelope`]: headers, the answer (`{"ok": …}` or `{"error": …}`) and its error codes.
//! * [`event`]: CloudEvents 1.0 in structured mode.
//! * [`job`]: long work as its followers see it.
//! * [`audit`]: who did what, and who was refused.
//! * [`hosts`]: which hosts there are and how they are; [`members`]: who belongs to the fleet; [`sender`]: who stands behind a
//!   request.
//! * [`snapshot`], [`rack_scheduler`], [`metal_broker`], [`repo`], [`house`]: the messages of each concern, of the repository and of the daemon
//!   itself.
//! * [`catalog`]: every endpoint and event with its schema; `windlass schema` and the golden tests read it. `ROOMS` is its table.
//!
//! What is absent: no type here names a path of another concern, an SDK's type, or a default that hides a missing field
//! from a reader of an older version (optional fields are `Option` or carry `#[serde(default)]`).

pub mod audit;
pub mod catalog;
#[cfg(feature = "example")]
pub mod echo;
pub mod envelope;
pub mod event;
pub mod hosts;
pub mod house;
pub mod job;
pub mod members;
mod messages;
pub mod metal_broker;
pub mod rack_scheduler;
pub mod repo;
pub mod sender;
pub mod snapshot;
pub mod subject;
pub mod trace;

pub use catalog::{Address, Asker, Intent, Request, Role, Topic};
pub use envelope::{Answer, Code, ErrorBody, Headers};
pub use sender::Sender;
pub use subject::{ConcernName, HostId, PersonId, Subject};

/// Version of the wire: the `v1` of every subject. A reader of version N reads N-1.
pub const WIRE_VERSION: u32 = 1;

/// Who has messages: one row a room. A concern's room is its file here.
static ROOMS: &[fn() -> catalog::Room] = &[
    house::room,
    hosts::room,
    job::room,
    audit::room,
    snapshot::room,
    rack_scheduler::room,
    metal_broker::room,
    #[cfg(feature = "example")]
    echo::room,
];
