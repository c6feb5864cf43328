//! `[repo.s3]`: how to speak to the server of an `s3://` repository.

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

/// How to speak to the server of an `s3://` repository, where its URL doesn't say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoS3 {
    /// URL of the server.
    pub endpoint: String,
    /// Region.
    pub region: String,
    /// Where the bucket's name stands.
    pub style: String,
    /// Certificates to trust.
    pub ca_file: String,
    /// Keys.
    pub credentials_file: String,
    /// Profile.
    pub profile: String,
    /// Encryption by the server.
    pub sse: String,
    /// Its key.
    pub sse_kms_key_id: String,
    /// Storage class.
    pub storage_class: String,
    /// The server's checksums.
    pub checksums: String,
    /// Bandwidth.
    pub upload_bytes_per_s_max: u64,
    /// Bandwidth.
    pub download_bytes_per_s_max: u64,
    /// Bodies that stall.
    pub stall_timeout_s: u64,
    /// Connections.
    pub connect_timeout_s: u64,
    /// Patience.
    pub retry_for_s: u64,
    /// Multipart uploads.
    pub part_bytes: u64,
}

impl RepoS3 {
    /// Each key's last word and its value as text, as the same key of a URL has it; empty where nobody said anything.
    pub fn pairs(&self) -> [(&'static str, String); 16] {
        [
            ("endpoint", self.endpoint.clone()),
            ("region", self.region.clone()),
            ("style", self.style.clone()),
            ("ca_file", self.ca_file.clone()),
            ("credentials_file", self.credentials_file.clone()),
            ("profile", self.profile.clone()),
            ("sse", self.sse.clone()),
            ("sse_kms_key_id", self.sse_kms_key_id.clone()),
            ("storage_class", self.storage_class.clone()),
            ("checksums", self.checksums.clone()),
            ("upload_bytes_per_s_max", self.upload_bytes_per_s_max.to_string()),
            ("download_bytes_per_s_max", self.download_bytes_per_s_max.to_string()),
            ("stall_timeout_s", self.stall_timeout_s.to_string()),
            ("connect_timeout_s", self.connect_timeout_s.to_string()),
            ("retry_for_s", self.retry_for_s.to_string()),
            ("part_bytes", self.part_bytes.to_string()),
        ]
    }
}

const fn text(path: &'static str, about: &'static str) -> Key {
    Key {
        path,
        kind: KeyType::Word,
        preset: Preset::Text(""),
        about,
    }
}

const fn number(path: &'static str, min: u64, max: u64, preset: u64, about: &'static str) -> Key {
    Key {
        path,
        kind: KeyType::Integer { min, max },
        preset: Preset::Integer(preset),
        about,
    }
}

pub(crate) static SECTION: Section = Section {
    name: "repo.s3",
    reload: Reload::None,
    about: "How to speak to the server of an s3:// repository. The URL may say each of these too, and wins: \
            s3://bucket/prefix?endpoint=https://host&region=name. Empty means that nobody says it here.",
    keys: &[
        text(
            "repo.s3.endpoint",
            "URL of the server; empty: AWS, or what AWS_ENDPOINT_URL names.",
        ),
        text(
            "repo.s3.region",
            "Region; empty: AWS_REGION, the profile, and us-east-1 where an endpoint is named.",
        ),
        Key {
            path: "repo.s3.style",
            kind: KeyType::Choice(&["auto", "path", "virtual"]),
            preset: Preset::Text("auto"),
            about: "Where the bucket's name stands: in the path or in the host; auto: in the path where an endpoint is named.",
        },
        text(
            "repo.s3.ca_file",
            "PEM file with certificates to trust beside the system's.",
        ),
        text(
            "repo.s3.credentials_file",
            "File with keys, written as the AWS tools' own credentials file; empty: their whole chain (AWS_ACCESS_KEY_ID, \
             profiles, SSO, web identity, the machine's role).",
        ),
        text(
            "repo.s3.profile",
            "Profile in that file, or in the AWS tools' own files.",
        ),
        Key {
            path: "repo.s3.sse",
            kind: KeyType::Choice(&["none", "AES256", "aws:kms"]),
            preset: Preset::Text("none"),
            about: "Encryption by the server.",
        },
        text(
            "repo.s3.sse_kms_key_id",
            "The key for aws:kms; empty: the bucket's own.",
        ),
        text(
            "repo.s3.storage_class",
            "Storage class of new objects, such as STANDARD_IA; empty: the bucket's own.",
        ),
        Key {
            path: "repo.s3.checksums",
            kind: KeyType::Choice(&["auto", "off"]),
            preset: Preset::Text("auto"),
            about: "auto: CRC-32C with each body, which servers that know it check; off: for servers that refuse it.",
        },
        number(
            "repo.s3.upload_bytes_per_s_max",
            0,
            1 << 40,
            0,
            "Bandwidth of all uploads together, in bytes a second; 0: as fast as it goes.",
        ),
        number(
            "repo.s3.download_bytes_per_s_max",
            0,
            1 << 40,
            0,
            "Bandwidth of all downloads together, in bytes a second; 0: as fast as it goes.",
        ),
        number(
            "repo.s3.stall_timeout_s",
            1,
            3600,
            30,
            "A body or answer of which no byte moves for so long is given up, and asked for anew.",
        ),
        number(
            "repo.s3.connect_timeout_s",
            1,
            600,
            10,
            "How long a connection may take to come about.",
        ),
        number(
            "repo.s3.retry_for_s",
            0,
            86_400,
            120,
            "How long a request is tried again; a server that has not answered once is given up after 10 s.",
        ),
        number(
            "repo.s3.part_bytes",
            5 << 20,
            5 << 30,
            64 << 20,
            "Objects larger than this are uploaded in parts of this size.",
        ),
    ],
};
