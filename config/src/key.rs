//! The table of keys: the one place that knows which keys there are.

/// A section of the file: a table, and what it is about.
#[derive(Debug)]
pub struct Section {
    /// Dotted name, such as `repo.chunker`; empty for the keys that stand before the first table.
    pub name: &'static str,
    /// One or two lines for people.
    pub about: &'static str,
    /// Which of its keys a running daemon takes up when the configuration is read again.
    pub reload: Reload,
    /// Its keys, in the order of the reference file.
    pub keys: &'static [Key],
}

/// Which keys of a section a running daemon takes up. The others are bound to what was opened at the start: sockets,
/// connections, the state directory, what hosts agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// All: what reads them is built anew.
    All,
    /// These, by the last part of their path.
    Only(&'static [&'static str]),
    /// None: they need a restart.
    None,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Dotted path, such as `snapshot.threads`.
    pub path: &'static str,
    /// What may stand there.
    pub kind: KeyType,
    /// What stands there when nobody says anything.
    pub preset: Preset,
    /// One line for people.
    pub about: &'static str,
}

/// What may stand behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// 1 to 64 of a-z, A-Z, 0-9, `_` and `-`.
    Token,
    /// A token, or nothing.
    TokenOrEmpty,
    /// Pairs of tokens: `disk=nvme,owner=ada`; or nothing.
    Labels,
    /// An absolute path.
    Path,
    /// One word of plain characters, or nothing.
    Word,
    /// An absolute path, or nothing.
    PathOrEmpty,
    /// Absolute paths with commas between, or nothing.
    Paths,
    /// Where a secret is: an absolute path, `env:NAME`, `credential:NAME`, or nothing.
    SecretOrEmpty,
    /// URLs of NATS servers, with commas between.
    NatsServers,
    /// A repository's URL, or an absolute path of a local one.
    RepoUrl,
    /// Directives of the log filter, such as `info,windlass_repo=debug`.
    LogFilter,
    /// An address with a port, or nothing.
    Listen,
    /// A host's name, or nothing.
    HostName,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A whole number within bounds, both included.
    Integer {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
}

/// A default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// The same everywhere.
    Text(&'static str),
    /// The same everywhere.
    Integer(u64),
    /// Depends on the machine or on another key; the text tells how, for people.
    Derived(&'static str),
}

impl Key {
    /// The variable that sets this key: `WINDLASS_`, the path in capitals, `__` for each dot.
    pub fn env_name(&self) -> String {
        format!("WINDLASS_{}", self.path.to_uppercase().replace('.', "__"))
    }
    /// The last part of the path: how the key is spelled inside its table.
    pub fn leaf(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }
}

impl KeyType {
    /// What is wanted, for messages: `a whole number from 1 to 19`.
    pub fn wanted(&self) -> String {
        match self {
            Self::Token => "1 to 64 of a-z, A-Z, 0-9, '_' and '-'".into(),
            Self::TokenOrEmpty => "nothing, or 1 to 64 of a-z, A-Z, 0-9, '_' and '-'".into(),
            Self::Labels => "at most 64 pairs of a-z, A-Z, 0-9, '_' and '-', such as disk=nvme,owner=ada".into(),
            Self::Path => "an absolute path".into(),
            Self::Word => "a word of at most 512 plain characters without spaces".into(),
            Self::PathOrEmpty => "an absolute path, or nothing".into(),
            Self::Paths => "absolute paths with commas between, or nothing".into(),
            Self::SecretOrEmpty => "an absolute path, env:NAME, credential:NAME, or nothing; never the secret itself".into(),
            Self::NatsServers => "nats://HOST:PORT or tls://HOST:PORT, with commas between".into(),
            Self::RepoUrl => {
                "a repository: file:///…, s3://bucket/…, gs://bucket/…, az://container/…, memory://… or an absolute path"
                    .into()
            }
            Self::LogFilter => {
                "error, warn, info, debug, trace or off, or a list such as 'info,windlass_repo=debug'".into()
            }
            Self::Listen => "an address with a port, such as 127.0.0.1:7070 or [::1]:7070, or nothing".into(),
            Self::HostName => "a host's name without a port, or nothing".into(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
        }
    }
}

/// Every section, in the order of the reference file.
pub fn sections() -> &'static [&'static Section] {
    crate::SECTIONS
}

/// Every key, in the order of the reference file.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    sections().iter().flat_map(|s| s.keys)
}

/// The key of that path.
pub fn key(path: &str) -> Option<&'static Key> {
    keys().find(|k| k.path == path)
}
