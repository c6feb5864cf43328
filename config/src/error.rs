//! Why there is no configuration. Policy: every fault that can be found is told at once, each with its place.

use crate::check::Finding;

/// What kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The file that was named doesn't exist.
    NotFound,
    /// The file may not be read.
    Denied,
    /// The file can't be read, for another reason.
    Unreadable,
    /// A value is wrong.
    Invalid,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    kind: Kind,
    message: String,
    hint: Option<String>,
    findings: Vec<Finding>,
    #[source]
    source: Option<std::io::Error>,
}

impl ConfigError {
    pub(crate) fn new(kind: Kind, message: String) -> Self {
        Self {
            kind,
            message,
            hint: None,
            findings: Vec::new(),
            source: None,
        }
    }
    pub(crate) fn findings(findings: Vec<Finding>) -> Self {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let mut error = Self::new(Kind::Invalid, lines.join("\n"));
        error.hint = Some("windlass check-config".into());
        error.findings = findings;
        error
    }
    pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::PermissionDenied => Kind::Denied,
            _ => Kind::Unreadable,
        };
        let mut error = Self::new(
            kind,
            format!("configuration file {} can't be read: {source}", path.display()),
        );
        error.source = Some(source);
        error
    }
    /// What kind of fault.
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// The faults, each with its place; empty when the file could not be read at all.
    pub fn faults(&self) -> &[Finding] {
        &self.findings
    }
    /// Always true: trying again helps only after someone changed something.
    pub fn is_permanent(&self) -> bool {
        true
    }
}

impl From<&ConfigError> for wire::ErrorBody {
    fn from(error: &ConfigError) -> Self {
        let code = match error.kind {
            Kind::NotFound => wire::Code::NotFound,
            Kind::Denied => wire::Code::Denied,
            Kind::Unreadable | Kind::Invalid => wire::Code::Invalid,
        };
        let body = wire::ErrorBody::new(code, error.to_string());
        match &error.hint {
            Some(hint) => body.hint(hint.clone()),
            None => body,
        }
    }
}
