//! Who belongs to the fleet: tokens that let a host or a person in, and the end of a membership. These are verbs of `hosts`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::messages::{request, sample_host, topic};
use crate::{HostId, Sender};

const CONCERN: &str = "hosts";

const SAMPLE_KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn sample_member() -> Sender {
    Sender::Host(sample_host())
}

/// Lets one member in, once, whoever shows that he has the secret of `token_key`. The secret never leaves who made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostToken {
    /// Whom the token lets in.
    pub member: Sender,
    /// The public half of the token, as 64 hexadecimal digits.
    pub token_key: String,
    /// How long it is good for, in seconds.
    pub valid_s: u64,
    /// The member may let others in and put them out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_admit: bool,
    /// The member is there already and lost its key: the new one takes its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// What a person may do: `viewer`, `operator` or `admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// A token that was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostTokenGranted {
    /// Whom it lets in.
    pub member: Sender,
    /// Who granted it.
    pub issuer: Sender,
    /// The public key of who granted it, as 64 hexadecimal digits.
    pub issuer_key: String,
    /// Until when, RFC 3339, by the fleet's clock.
    pub expires_at: String,
}

request!(
    HostToken,
    HostTokenGranted,
    "token",
    Host,
    Changes,
    "Let one host or person join the fleet, once",
    Admin,
    Self {
        member: sample_member(),
        token_key: SAMPLE_KEY.into(),
        valid_s: 3_600,
        may_admit: false,
        replace: false,
        role: None,
    },
    HostTokenGranted {
        member: sample_member(),
        issuer: sample_member(),
        issuer_key: SAMPLE_KEY.into(),
        expires_at: "2026-11-25T22:00:00Z".into(),
    }
);

/// Puts a member out: from then on nothing that it signs is heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostRevoke {
    /// Whom.
    pub member: Sender,
}

/// A member was put out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostRevoked {
    /// Whom.
    pub member: Sender,
    /// Whom it had let in; they stay members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub admitted: Vec<Sender>,
}

request!(
    HostRevoke,
    HostRevoked,
    "revoke",
    Host,
    Changes,
    "Put a member out of the fleet: nothing that it signs is heard any more",
    Admin,
    Self {
        member: sample_member()
    },
    HostRevoked {
        member: sample_member(),
        admitted: vec![],
    }
);

/// Asks who belongs to the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostMembers {}

/// Members of the fleet, those that were put out too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostMembership {
    /// By kind and id.
    pub members: Vec<MemberInfo>,
}

/// A member of the fleet, as the host that answers knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemberInfo {
    /// Who.
    pub member: Sender,
    /// Counts its admissions and its exclusions.
    pub epoch: u64,
    /// It was put out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
    /// It may let others in and put them out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_admit: bool,
    /// What a person may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Its public key, as 64 hexadecimal digits.
    pub key: String,
    /// Who let it in or put it out; absent where the host that answers was told when it joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Sender>,
}

request!(
    HostMembers,
    HostMembership,
    "members",
    Host,
    Reads,
    "Who belongs to the fleet",
    Viewer,
    Self {},
    HostMembership {
        members: vec![MemberInfo {
            member: sample_member(),
            epoch: 1,
            revoked: false,
            may_admit: true,
            role: None,
            key: SAMPLE_KEY.into(),
            by: Some(sample_member()),
        }],
    }
);

/// Event: something was refused for want of authority. Told at most once a second for each reason; `count` has the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostRefused {
    /// Who refused it.
    pub host: HostId,
    /// What: a subject, a job, a key of the state.
    pub what: String,
    /// Who it said that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<String>,
    /// `unsigned`, `unreadable`, `unknown`, `revoked`, `stale`, `altered`, `replayed` or `unauthorised`.
    pub reason: String,
    /// How many of this reason since it was told last, this one too.
    pub count: u64,
}

topic!(
    HostRefused,
    "refused",
    "Something was refused for want of authority",
    Self {
        host: sample_host(),
        what: "windlass.v1.host.h1.snapshot.restore".into(),
        claimed: Some("host:h9".into()),
        reason: "unknown".into(),
        count: 1,
    }
);
