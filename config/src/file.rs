//! The configuration file: which one, its text, and its values with their lines.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, Kind};
use crate::host::Surroundings;

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file's text and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileText {
    /// Where it stands.
    pub path: PathBuf,
    /// What stands in it.
    pub text: String,
}

/// The file to read: the one that a flag names, else `WINDLASS_CONFIG`, else the usual place. True: it must exist.
pub fn choose_file(flag: Option<&Path>, surroundings: &Surroundings) -> Option<(PathBuf, bool)> {
    let named = flag
        .map(Path::to_owned)
        .or_else(|| surroundings.var("WINDLASS_CONFIG").map(PathBuf::from));
    match named {
        Some(path) => Some((surroundings.working_dir.join(path), true)),
        None => surroundings.config_file().map(|path| (path, false)),
    }
}

/// Reads a configuration file; `None` when it needn't exist and doesn't.
///
/// # Errors
/// When it must exist and doesn't, may not be read, is no UTF-8, or has more than 1 MiB.
pub fn read_file(path: &Path, must_exist: bool) -> Result<Option<FileText>, ConfigError> {
    use std::io::Read as _;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(None),
        Err(e) => return Err(ConfigError::io(path, e)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| ConfigError::io(path, e))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message = format!(
            "configuration file {} has more than {FILE_BYTES_MAX} bytes",
            path.display()
        );
        return Err(ConfigError::new(Kind::Invalid, message));
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        ConfigError::new(
            Kind::Invalid,
            format!("configuration file {} is not UTF-8", path.display()),
        )
    })?;
    Ok(Some(FileText {
        path: path.to_owned(),
        text,
    }))
}

/// What stands behind a key in the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Raw {
    Text(String),
    Integer(i128),
    /// A table where a value was wanted.
    Table,
    /// Something that no key takes: its TOML type.
    Other(&'static str),
}

/// A key of the file, known or not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) raw: Raw,
    pub(crate) line: usize,
}

/// Why the text is no TOML.
#[derive(Debug)]
pub(crate) struct SyntaxFault {
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// Every value of the text with its line, and every table that isn't a section.
pub(crate) fn entries(text: &str) -> Result<Vec<Entry>, SyntaxFault> {
    let table = DeTable::parse(text).map_err(|e| SyntaxFault {
        line: e.span().map_or(1, |span| line_of(text, span.start)),
        message: e.message().trim().to_owned(),
    })?;
    let mut found = Vec::new();
    walk(text, "", table.get_ref(), &mut found);
    found.sort_by_key(|e| e.line);
    Ok(found)
}

fn walk(text: &str, prefix: &str, table: &DeTable<'_>, found: &mut Vec<Entry>) {
    for (name, value) in table {
        let path = match prefix {
            "" => name.get_ref().to_string(),
            _ => format!("{prefix}.{}", name.get_ref()),
        };
        let line = line_of(text, name.span().start);
        let is_section = crate::sections().iter().any(|s| s.name == path);
        let raw = match value.get_ref() {
            DeValue::Table(inner) if is_section => {
                walk(text, &path, inner, found);
                continue;
            }
            DeValue::Table(_) => Raw::Table,
            DeValue::String(s) => Raw::Text(s.to_string()),
            DeValue::Integer(i) => match i128::from_str_radix(&i.as_str().replace('_', ""), i.radix()) {
                Ok(number) => Raw::Integer(number),
                Err(_) => Raw::Other("integer"),
            },
            other => Raw::Other(other.type_str()),
        };
        found.push(Entry { path, raw, line });
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}
