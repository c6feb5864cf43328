//! Tokens of people: each has a name and a role; of the token itself only its hash is kept.
//!
//! The file has a line a token: `name role blake3:HASH`. It is private, it is written whole, and the gateway reads it again when it
//! changes, so that a token that was removed is worth nothing from then on.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use wire::PersonId;
use wire::{Code, ErrorBody, Role};

use super::guard::{check_private, read_failed};

/// Tokens of a file.
const TOKENS_MAX: usize = 10_000;
/// Bytes of a file.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
const HASH: &str = "blake3:";

/// A token, without itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Whose it is.
    pub name: PersonId,
    /// What they may do.
    pub role: Role,
    hash: blake3::Hash,
}

impl Row {
    /// Takes as long whatever differs: equality of `blake3::Hash` is made for that.
    pub(super) fn is(&self, token: &str) -> bool {
        self.hash == blake3::hash(token.as_bytes())
    }
}

/// What a file is, to see whether it is another one now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64, u64, Option<SystemTime>);

/// The stamp of a file; `None` when there is none.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some(Stamp(meta.ino(), meta.len(), meta.modified().ok()))
}

/// The tokens in a file; none when it isn't there.
///
/// # Errors
/// `denied` when others may read it; `invalid` with the number of a line that is none.
pub fn read(path: &Path) -> Result<Vec<Row>, ErrorBody> {
    let meta = match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(read_failed(path, &e)),
        Ok(meta) => meta,
    };
    check_private(path, &meta)?;
    let invalid = |why: String| {
        ErrorBody::new(Code::Invalid, format!("the tokens in {}: {why}", path.display()))
            .hint("windlass gateway token ls")
    };
    if meta.len() > FILE_BYTES_MAX {
        return Err(invalid(format!("more than {FILE_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| read_failed(path, &e))?;
    let mut rows: Vec<Row> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let row = parsed(line).ok_or_else(|| invalid(format!("line {} is not NAME ROLE {HASH}HASH", n + 1)))?;
        if rows.iter().any(|known| known.name == row.name) {
            return Err(invalid(format!("line {}: '{}' stands twice", n + 1, row.name)));
        }
        rows.push(row);
    }
    if rows.len() > TOKENS_MAX {
        return Err(invalid(format!("more than {TOKENS_MAX}")));
    }
    Ok(rows)
}

fn parsed(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace();
    let row = Row {
        name: PersonId::new(words.next()?).ok()?,
        role: words.next()?.parse().ok()?,
        hash: blake3::Hash::from_hex(words.next()?.strip_prefix(HASH)?).ok()?,
    };
    words.next().is_none().then_some(row)
}

/// Makes a token for a person and returns it: the only time that it is seen.
///
/// # Errors
/// `conflict` when the person has one; as [`read`]; what the file system says.
pub fn add(path: &Path, name: PersonId, role: Role) -> Result<String, ErrorBody> {
    let mut rows = read(path)?;
    if rows.iter().any(|row| row.name == name) {
        return Err(
            ErrorBody::new(Code::Conflict, format!("'{name}' has a token; nothing was changed"))
                .hint(format!("windlass gateway token rm {name}")),
        );
    }
    let mut bytes = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|e| {
        ErrorBody::new(
            Code::Unavailable,
            format!("the system gives no randomness: {e}; nothing was changed"),
        )
    })?;
    let token = blake3::Hash::from_bytes(bytes).to_hex().to_string();
    let hash = blake3::hash(token.as_bytes());
    rows.push(Row { name, role, hash });
    write(path, &rows)?;
    Ok(token)
}

/// Removes a person's token.
///
/// # Errors
/// `not_found` when they have none; as [`read`]; what the file system says.
pub fn remove(path: &Path, name: &PersonId) -> Result<(), ErrorBody> {
    let mut rows = read(path)?;
    let before = rows.len();
    rows.retain(|row| row.name != *name);
    if rows.len() == before {
        return Err(
            ErrorBody::new(Code::NotFound, format!("'{name}' has no token; nothing was changed"))
                .hint("windlass gateway token ls"),
        );
    }
    write(path, &rows)
}

/// Whole or not at all, and nobody else's to read at any time.
fn write(path: &Path, rows: &[Row]) -> Result<(), ErrorBody> {
    let text: String = rows
        .iter()
        .map(|row| format!("{} {} {HASH}{}\n", row.name, row.role, row.hash.to_hex()))
        .collect();
    let dir = path.parent().unwrap_or(Path::new("/"));
    let written = || {
        std::fs::create_dir_all(dir)?;
        // made with mode 0600
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        std::fs::File::open(dir)?.sync_all()
    };
    written().map_err(|e: std::io::Error| {
        let code = match e.kind() {
            std::io::ErrorKind::PermissionDenied => Code::Denied,
            _ => Code::Unavailable,
        };
        ErrorBody::new(code, format!("the tokens in {} can't be written: {e}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_made_listed_and_removed_and_only_their_hashes_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/gateway.tokens");
        let (ada, eve) = (PersonId::new("ada").unwrap(), PersonId::new("eve").unwrap());
        assert_eq!(read(&path).unwrap(), vec![]);
        let token = add(&path, ada.clone(), Role::Operator).unwrap();
        add(&path, eve.clone(), Role::Viewer).unwrap();
        assert_eq!(add(&path, ada.clone(), Role::Admin).unwrap_err().code, Code::Conflict);
        let rows = read(&path).unwrap();
        assert_eq!((rows.len(), &rows[0].name, rows[0].role), (2, &ada, Role::Operator));
        assert!(rows[0].is(&token) && !rows[1].is(&token) && !rows[0].is("other"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&token));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        remove(&path, &ada).unwrap();
        assert_eq!(remove(&path, &ada).unwrap_err().code, Code::NotFound);
        assert_eq!(read(&path).unwrap()[0].name, eve);
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        add(&path, PersonId::new("ada").unwrap(), Role::Admin).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read(&path).unwrap_err().code, Code::Denied);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        for bad in [
            "ada admin",
            "ada king blake3:00",
            "a.b admin blake3:00",
            &format!("{good}{good}"),
            "\u{0}",
        ] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(read(&path).unwrap_err().code, Code::Invalid, "{bad}");
        }
    }
}
